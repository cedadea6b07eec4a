// An expert in C++: bodies, or ADDRESS KEY_FILE SECONDS. Reads alerts, a line each: type, service, severity and message
// as UTF-16 in hexadecimal, a tab between. Prints the bodies; or posts all, polls until each has an end, and prints that.
#include "stand_ins.hpp"
#include "Selfheal.hpp"

#include <poll.h>

static string field(std::string &line)
{
    std::string hex = line.substr(0, line.find('\t'));
    line.erase(0, hex.size() + 1);
    string made;
    for (size_t at = 0; at + 3 < hex.size(); at += 4)
        made.units += (char16_t)strtoul(hex.substr(at, 4).c_str(), NULL, 16);
    return made;
}

int main(int count, char **words)
{
    SelfhealSender *sender = count == 4 ? new SelfhealSender(words[1], words[2]) : NULL;
    std::vector<string> ids;
    for (std::string line; std::getline(std::cin, line);) {
        line += '\t';
        string type = field(line), service = field(line), severity = field(line), message = field(line);
        if (sender == NULL)
            std::cout << SelfhealBody(type, service, severity, message).ascii() << std::endl;
        else
            ids.push_back(sender->Post(type, service, severity, message));
    }
    if (sender == NULL)
        return 0;
    uint began = GetTickCount();
    size_t ended = 0;
    while (ended < ids.size() && GetTickCount() - began < 1000 * (uint)atoi(words[3])) {
        sender->Poll();
        for (ended = 0; ended < ids.size() && sender->Said(ids[ended]) != "";)
            ended++;
        poll(NULL, 0, 20); // OnTimer's
    }
    for (const string &id : ids)
        std::cout << id.ascii() << " " << sender->Said(id).ascii() << std::endl;
    delete sender;
    return ended == ids.size() ? 0 : 5;
}

//+------------------------------------------------------------------+
//| Alerts to a Selfheal daemon from MQL4, over mql-zmq with CURVE.   |
//| NOT RUN in MetaTrader by its authors: there was none. See README. |
//|                                                                   |
//|   #include <Selfheal.mqh>                                         |
//|   SelfhealSender *selfheal;                                       |
//|   int OnInit() { selfheal=new SelfhealSender("tcp://127.0.0.1:5570","mt4.key"); |
//|                  EventSetMillisecondTimer(250); return INIT_SUCCEEDED; }        |
//|   void OnTimer() { selfheal.Poll(); }                             |
//|   void OnDeinit(const int reason) { EventKillTimer(); delete selfheal; }        |
//|   ... string id=selfheal.Post("bridge_mql4_failure","","high","OrderSend failed: 130"); |
//|   ... later: selfheal.Said(id) is "run x-0123", "no_match", "refused forbidden: ...", "" |
//+------------------------------------------------------------------+
#property strict
#include <Zmq/Zmq.mqh>

#define SELFHEAL_MAX_WAITING 1000
#define SELFHEAL_MAX_BODY 65536
#define SELFHEAL_MAX_FRAME 131072
#define SELFHEAL_MAX_LETTERS 8192
#define SELFHEAL_MAX_TEXT 16384
#define SELFHEAL_SILENCE_MS 6000
#define SELFHEAL_FIRST_WAIT_MS 500
#define SELFHEAL_MAX_WAIT_MS 30000
#define SELFHEAL_REMEMBERED 100

bool SelfhealIsHigh(const ushort letter) { return letter>=0xD800 && letter<0xDC00; }
bool SelfhealIsLow(const ushort letter)  { return letter>=0xDC00 && letter<0xE000; }

//--- JSON in ASCII: mql-zmq may cut other text short. Cut where the wire's limits are; a half of a pair becomes U+FFFD.
string SelfhealText(const string text)
  {
   string made="\"";
   int letters=StringLen(text),bytes=0;
   bool is_paired=false;
   for(int at=0; at<letters; at++)
     {
      ushort letter=StringGetCharacter(text,at);
      ushort next=(ushort)(at+1<letters ? StringGetCharacter(text,at+1) : 0);
      bool is_second=is_paired;
      is_paired=!is_second && SelfhealIsHigh(letter) && SelfhealIsLow(next);
      if(!is_second && !is_paired && (SelfhealIsHigh(letter) || SelfhealIsLow(letter)))
         letter=0xFFFD;
      if(!is_second)
         bytes+=is_paired ? 4 : letter<0x80 ? 1 : letter<0x800 ? 2 : 3;
      if(!is_second && (bytes>SELFHEAL_MAX_TEXT || at+(is_paired ? 2 : 1)>SELFHEAL_MAX_LETTERS))
         break;
      if(letter=='"' || letter=='\\')
         made+="\\"+ShortToString(letter);
      else if(letter<32 || letter>126)
         made+="\\u"+StringFormat("%04x",letter);
      else
         made+=ShortToString(letter);
     }
   return made+"\"";
  }

string SelfhealBody(const string type,const string service,const string severity,const string message)
  {
   string body="{\"type\":"+SelfhealText(type)+",\"severity\":"+SelfhealText(severity)+",\"source\":\"mt4\"";
   if(service!="")
      body+=",\"service\":"+SelfhealText(service);
   if(message!="")
      body+=",\"message\":"+SelfhealText(message);
   return body+"}";
  }

//--- a text field of the daemon's compact ASCII JSON, its escapes left as they are; "" when it is not there
string SelfhealField(const string body,const string name)
  {
   string mark="\""+name+"\":\"";
   int start=StringFind(body,mark);
   if(start<0)
      return "";
   start+=StringLen(mark);
   int end=start;
   while(end<StringLen(body) && StringGetCharacter(body,end)!='"')
      end+=StringGetCharacter(body,end)=='\\' ? 2 : 1;
   return StringSubstr(body,start,end-start);
  }

//--- a whole number of it; 0 when it is not there
int SelfhealNumber(const string body,const string name)
  {
   string mark="\""+name+"\":";
   int start=StringFind(body,mark);
   if(start<0)
      return 0;
   int number=0;
   for(int at=start+StringLen(mark); at<StringLen(body) && number<100000000; at++)
     {
      ushort letter=StringGetCharacter(body,at);
      if(letter<'0' || letter>'9')
         break;
      number=number*10+(letter-'0');
     }
   return number;
  }

class SelfhealSender
  {
private:
   Context           m_context;
   Socket           *m_socket;
   string            m_address,m_key_file,m_public,m_secret,m_server;
   bool              m_plain;
   string            m_ids[],m_bodies[];
   string            m_said_ids[],m_said[];
   uint              m_heard_at,m_sent_at;
   int               m_wait_ms,m_step_ms,m_made;

   bool              ReadKey();
   void              Open();
   bool              SendFrame(const string text,const bool more);
   bool              SendFirst();
   bool              TakeAnswer();
   void              Answered(const string kind,const string id,const string body);
   void              DropFirst();
   void              Note(const string id,const string said);
   int               Spread(const int ms) { return (int)((double)ms*(80+MathRand()%41)/100); }
   int               Since(const uint then) { return (int)(GetTickCount()-then); }
public:
                     SelfhealSender(const string address,const string key_file);
                    ~SelfhealSender() { if(m_socket!=NULL) delete m_socket; }
   string            Post(const string type,const string service,const string severity,const string message);
   void              Poll();
   int               Waiting() { return ArraySize(m_ids); }
   string            Said(const string id);
  };

SelfhealSender::SelfhealSender(const string address,const string key_file):m_context("__selfheal__")
  {
   m_socket=NULL;
   m_address=address;
   m_key_file=key_file;
   m_made=0;
   m_wait_ms=0;
   m_step_ms=SELFHEAL_FIRST_WAIT_MS;
   MathSrand(GetTickCount());
   Open();
  }

//--- the client key file, copied into MQL4\Files; false: it is not whole
bool SelfhealSender::ReadKey()
  {
   m_plain=false;
   m_public="";
   m_secret="";
   m_server="";
   int handle=FileOpen(m_key_file,FILE_READ|FILE_TXT|FILE_ANSI|FILE_SHARE_READ);
   if(handle==INVALID_HANDLE)
     {
      Print("selfheal: no key file ",m_key_file," in MQL4\\Files");
      return false;
     }
   while(!FileIsEnding(handle))
     {
      string line=FileReadString(handle);
      int blank=StringFind(line," ");
      if(blank<1 || StringGetCharacter(line,0)=='#')
         continue;
      string word=StringSubstr(line,0,blank);
      string value=StringTrimRight(StringTrimLeft(StringSubstr(line,blank+1)));
      if(word=="public") m_public=value;
      if(word=="secret") m_secret=value;
      if(word=="server") m_server=value;
      if(StringFind(line,"curve off")>=0) m_plain=true; // whatever mark an editor has put in front
     }
   FileClose(handle);
   if(!m_plain && (StringLen(m_public)!=40 || StringLen(m_secret)!=40 || StringLen(m_server)!=40))
     {
      Print("selfheal: ",m_key_file," holds no client key: public, secret and server of 40 characters");
      return false;
     }
   return true;
  }

//--- made anew when the daemon was silent too long: a refused handshake leaves a dead socket. The key is read again.
void SelfhealSender::Open()
  {
   if(m_socket!=NULL)
      delete m_socket;
   m_socket=NULL;
   m_heard_at=GetTickCount();
   if(!ReadKey())
      return;
   m_socket=new Socket(m_context,ZMQ_DEALER);
   m_socket.setLinger(0);
   m_socket.setImmediate(true);
   m_socket.setSendHighWaterMark(200);
   m_socket.setReceiveHighWaterMark(200);
   m_socket.setMaxMessageSize(SELFHEAL_MAX_FRAME);
   m_socket.setHandshakeInterval(5000);
   m_socket.setHeartbeatInterval(2000);
   m_socket.setHeartbeatTimeout(6000);
   m_socket.setHeartbeatTTL(9000);
   m_socket.setReconnectInterval(100);
   m_socket.setReconnectIntervalMax(5000);
   if(!m_plain && !(m_socket.setCurvePublicKey(m_public) && m_socket.setCurveSecretKey(m_secret) &&
      m_socket.setCurveServerKey(m_server)))
      Print("selfheal: libzmq takes no CURVE keys; is libsodium.dll there?");
   if(!m_socket.connect(m_address))
      Print("selfheal: cannot connect to ",m_address);
  }

//--- queue an alert; its id, or "" when it is not taken. What waits is lost when the terminal ends: see ../filedrop.
string SelfhealSender::Post(const string type,const string service,const string severity,const string message)
  {
   string body=SelfhealBody(type,service,severity,message);
   int count=ArraySize(m_ids);
   if(count>=SELFHEAL_MAX_WAITING || StringLen(body)>SELFHEAL_MAX_BODY)
     {
      Print("selfheal: not taken: ",body);
      return "";
     }
   m_made++;
   string id=StringFormat("mql4-%d-%u-%d-%d",(int)TimeLocal(),GetTickCount(),m_made,MathRand());
   ArrayResize(m_ids,count+1);
   ArrayResize(m_bodies,count+1);
   m_ids[count]=id;
   m_bodies[count]=body;
   return id;
  }

//--- what became of one of the last 100: its decision and execution, or why it was refused; "" while nothing is known
string SelfhealSender::Said(const string id)
  {
   for(int at=ArraySize(m_said_ids)-1; at>=0; at--)
      if(m_said_ids[at]==id)
         return m_said[at];
   return "";
  }

//--- from OnTimer: never blocks. The oldest is sent, again under its id until it is stored, later and later.
void SelfhealSender::Poll()
  {
   while(TakeAnswer()) {}
   if(ArraySize(m_ids)==0)
     {
      m_heard_at=GetTickCount();
      return;
     }
   if(Since(m_heard_at)>SELFHEAL_SILENCE_MS)
      Open();
   if(m_socket==NULL || (m_wait_ms>0 && Since(m_sent_at)<m_wait_ms))
      return;
   if(SendFirst())
     {
      m_sent_at=GetTickCount();
      m_wait_ms=Spread(m_step_ms);
      m_step_ms=(int)MathMin(m_step_ms*2,SELFHEAL_MAX_WAIT_MS);
     }
  }

bool SelfhealSender::SendFrame(const string text,const bool more)
  {
   uchar bytes[];
   int size=StringLen(text);
   ArrayResize(bytes,size);
   for(int at=0; at<size; at++)
      bytes[at]=(uchar)StringGetCharacter(text,at);
   return m_socket.send(bytes,true,more);
  }

//--- false: there is no connection, and nothing was sent
bool SelfhealSender::SendFirst()
  {
   if(!SendFrame("SH1",true))
      return false;
   if(SendFrame("ALERT",true) && SendFrame("j",true) && SendFrame(m_ids[0],true) && SendFrame(m_bodies[0],false))
      return true;
   Open(); // a message cut off in the middle: it must not become the beginning of the next one
   return false;
  }

//--- false: there was none
bool SelfhealSender::TakeAnswer()
  {
   if(m_socket==NULL)
      return false;
   string frames[5];
   ZmqMsg part; // one for all: each recv frees what it held
   int count=0;
   bool more=true;
   while(more)
     {
      if(!m_socket.recv(part,true))
         return false;
      if(count<5)
         frames[count]=part.getData();
      count++;
      more=part.more();
     }
   m_heard_at=GetTickCount();
   if(count==5 && frames[0]=="SH1" && frames[2]=="j")
      Answered(frames[1],frames[3],frames[4]);
   return true;
  }

void SelfhealSender::Answered(const string kind,const string id,const string body)
  {
   if(kind=="DECIDED" && StringFind(id,"mql4-")==0)
     {
      string execution=SelfhealField(body,"execution_id");
      Note(id,SelfhealField(body,"outcome")+(execution=="" ? "" : " "+execution));
      return;
     }
   if(ArraySize(m_ids)==0 || id!=m_ids[0])
      return;
   if(kind=="STORED")
     {
      Print("selfheal: stored ",id);
      DropFirst();
     }
   else if(kind=="NACK" && StringFind(body,"\"permanent\":true")>=0)
     {
      Note(id,"refused "+SelfhealField(body,"code")+": "+SelfhealField(body,"text"));
      DropFirst();
     }
   else if(kind=="NACK")
     {
      m_sent_at=GetTickCount();
      m_wait_ms=(int)MathMax(SelfhealNumber(body,"retry_after_ms"),100);
      m_heard_at=m_sent_at+(uint)m_wait_ms; // nobody is silent who was not asked
     }
  }

void SelfhealSender::Note(const string id,const string said)
  {
   Print("selfheal: ",id,": ",said);
   int count=ArraySize(m_said);
   if(count==SELFHEAL_REMEMBERED)
     {
      count--;
      for(int at=0; at<count; at++)
        {
         m_said_ids[at]=m_said_ids[at+1];
         m_said[at]=m_said[at+1];
        }
     }
   ArrayResize(m_said_ids,count+1);
   ArrayResize(m_said,count+1);
   m_said_ids[count]=id;
   m_said[count]=said;
  }

void SelfhealSender::DropFirst()
  {
   int left=ArraySize(m_ids)-1;
   for(int at=0; at<left; at++)
     {
      m_ids[at]=m_ids[at+1];
      m_bodies[at]=m_bodies[at+1];
     }
   ArrayResize(m_ids,left);
   ArrayResize(m_bodies,left);
   m_wait_ms=0;
   m_step_ms=SELFHEAL_FIRST_WAIT_MS;
  }

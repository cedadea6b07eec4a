//+------------------------------------------------------------------+
//| Alerts to a Selfheal daemon from MQL4, over mql-zmq with CURVE.   |
//| NOT RUN by its authors: there was no MetaTrader. See README.md.   |
//|                                                                   |
//|   #include <Selfheal.mqh>                                         |
//|   SelfhealSender *selfheal;                                       |
//|   int OnInit() { selfheal=new SelfhealSender("tcp://127.0.0.1:5570","mt4.key"); |
//|                  EventSetMillisecondTimer(250); return INIT_SUCCEEDED; }        |
//|   void OnTimer() { selfheal.Poll(); }                             |
//|   void OnDeinit(const int reason) { EventKillTimer(); delete selfheal; }        |
//|   ... selfheal.Alert("bridge_mql4_failure","","high","OrderSend failed: 130");  |
//+------------------------------------------------------------------+
#property strict
#include <Zmq/Zmq.mqh>

#define SELFHEAL_MAX_WAITING 1000
#define SELFHEAL_MAX_BODY 65536
#define SELFHEAL_SILENCE_MS 6000

//--- JSON in ASCII: mql-zmq may cut other text short
string SelfhealText(const string text)
  {
   string made="\"";
   for(int at=0; at<StringLen(text); at++)
     {
      ushort letter=StringGetCharacter(text,at);
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

//--- a text field of a compact JSON answer; "" when it is not there
string SelfhealField(const string body,const string name)
  {
   string mark="\""+name+"\":\"";
   int start=StringFind(body,mark);
   if(start<0)
      return "";
   start+=StringLen(mark);
   return StringSubstr(body,start,StringFind(body,"\"",start)-start);
  }

class SelfhealSender
  {
private:
   Context           m_context;
   Socket           *m_socket;
   string            m_address,m_public,m_secret,m_server;
   bool              m_plain;
   string            m_ids[],m_bodies[];
   uint              m_heard_at,m_sent_at,m_wait_ms;
   int               m_made;

   void              ReadKey(const string file);
   void              Open();
   bool              SendFrame(const string text,const bool more);
   bool              SendFirst();
   bool              TakeAnswer();
   void              DropFirst();
public:
                     SelfhealSender(const string address,const string key_file);
                    ~SelfhealSender() { if(m_socket!=NULL) delete m_socket; }
   string            Alert(const string type,const string service,const string severity,const string message);
   void              Poll();
   int               Waiting() { return ArraySize(m_ids); }
  };

SelfhealSender::SelfhealSender(const string address,const string key_file):m_context("__selfheal__")
  {
   m_socket=NULL;
   m_address=address;
   m_plain=false;
   m_made=0;
   m_wait_ms=0;
   MathSrand(GetTickCount());
   ReadKey(key_file);
   Open();
  }

//--- the client key file, copied into MQL4\Files
void SelfhealSender::ReadKey(const string file)
  {
   int handle=FileOpen(file,FILE_READ|FILE_TXT|FILE_ANSI);
   if(handle==INVALID_HANDLE)
     {
      Print("selfheal: no key file ",file," in MQL4\\Files");
      return;
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
      if(word=="curve" && value=="off") m_plain=true;
     }
   FileClose(handle);
  }

//--- made anew when the daemon was silent too long: a refused handshake leaves a dead socket
void SelfhealSender::Open()
  {
   if(m_socket!=NULL)
      delete m_socket;
   m_socket=new Socket(m_context,ZMQ_DEALER);
   m_socket.setLinger(0);
   m_socket.setImmediate(true);
   m_socket.setSendHighWaterMark(200);
   m_socket.setReceiveHighWaterMark(200);
   m_socket.setHeartbeatInterval(2000);
   m_socket.setHeartbeatTimeout(6000);
   m_socket.setHeartbeatTTL(9000);
   m_socket.setReconnectInterval(100);
   m_socket.setReconnectIntervalMax(5000);
   if(!m_plain)
     {
      m_socket.setCurvePublicKey(m_public);
      m_socket.setCurveSecretKey(m_secret);
      m_socket.setCurveServerKey(m_server);
     }
   m_socket.connect(m_address);
   m_heard_at=GetTickCount();
   m_wait_ms=0;
  }

//--- queue an alert; "" when it is not taken. What waits is lost when the terminal ends: see filedrop for more.
string SelfhealSender::Alert(const string type,const string service,const string severity,const string message)
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

//--- from OnTimer: never blocks
void SelfhealSender::Poll()
  {
   while(TakeAnswer()) {}
   if(ArraySize(m_ids)==0)
     {
      m_heard_at=GetTickCount();
      return;
     }
   if(GetTickCount()-m_heard_at>SELFHEAL_SILENCE_MS)
      Open();
   if(m_wait_ms>0 && GetTickCount()-m_sent_at<m_wait_ms)
      return;
   if(SendFirst())
     {
      m_sent_at=GetTickCount();
      m_wait_ms=m_wait_ms==0 ? 500 : MathMin(m_wait_ms*2,30000);
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

bool SelfhealSender::SendFirst()
  {
   return SendFrame("SH1",true) && SendFrame("ALERT",true) && SendFrame("j",true) &&
          SendFrame(m_ids[0],true) && SendFrame(m_bodies[0],false);
  }

//--- false: there was none
bool SelfhealSender::TakeAnswer()
  {
   string frames[5];
   int count=0;
   bool more=true;
   while(more)
     {
      ZmqMsg part;
      if(!m_socket.recv(part,true))
         return false;
      if(count<5)
         frames[count]=part.getData();
      count++;
      more=part.more();
     }
   m_heard_at=GetTickCount();
   if(count!=5 || frames[0]!="SH1" || ArraySize(m_ids)==0 || frames[3]!=m_ids[0])
      return true;
   if(frames[1]=="STORED")
     {
      Print("selfheal: stored ",m_ids[0]);
      DropFirst();
     }
   else if(frames[1]=="NACK" && StringFind(frames[4],"\"permanent\":true")>=0)
     {
      Print("selfheal: refused ",SelfhealField(frames[4],"code"),": ",SelfhealField(frames[4],"text"));
      DropFirst();
     }
   else if(frames[1]=="NACK")
     {
      m_sent_at=GetTickCount();
      m_wait_ms=1000;
     }
   return true;
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
  }

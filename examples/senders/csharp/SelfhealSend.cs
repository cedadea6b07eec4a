/*
 * Send one alert to a Selfheal daemon: P/Invoke to libzmq, JSON. Written from docs/wire.md in C# 5, so that Windows
 * PowerShell 5.1 (Add-Type), .NET Framework's csc and Mono's mcs all compile it.
 *
 *     mcs -langversion:5 SelfhealSend.cs
 *     mono SelfhealSend.exe --type service_failure --service risk-manager --message "no heartbeat"
 *
 * Prints `stored ID` once the daemon has the alert on disk and `decided OUTCOME [EXECUTION]`. Exit codes: 0 well,
 * 1 refused for good, 2 usage, 4 no key, or no answer in time, 5 stored, but no decision in time.
 */
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;

namespace Selfheal
{
    /// <summary>The program ends with this exit code and text.</summary>
    public class EndsWith : Exception
    {
        public readonly int Code;

        public EndsWith(int code, string text) : base(text)
        {
            Code = code;
        }
    }

    internal static class Zmq
    {
        private const string Library = "libzmq"; // libzmq.dll; on Linux libzmq.so (Debian: libzmq3-dev)
        private const CallingConvention C = CallingConvention.Cdecl;

        public const int Dealer = 5, DontWait = 1, SendMore = 2;
        public const int Linger = 17, ReconnectIvl = 18, ReconnectIvlMax = 21, MaxMsgSize = 22, SndHwm = 23, RcvHwm = 24;
        public const int RcvMore = 13, RcvTimeo = 27, Immediate = 39, PublicKey = 48, SecretKey = 49, ServerKey = 50;
        public const int HandshakeIvl = 66, HeartbeatIvl = 75, HeartbeatTtl = 76, HeartbeatTimeout = 77;

        [DllImport(Library, CallingConvention = C)] public static extern IntPtr zmq_ctx_new();
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_ctx_term(IntPtr context);
        [DllImport(Library, CallingConvention = C)] public static extern IntPtr zmq_socket(IntPtr context, int type);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_close(IntPtr socket);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_connect(IntPtr socket, byte[] address);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_setsockopt(IntPtr socket, int option, byte[] value, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_getsockopt(IntPtr socket, int option, byte[] value, ref UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_send(IntPtr socket, byte[] data, UIntPtr size, int flags);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_recv(IntPtr socket, byte[] data, UIntPtr size, int flags);
        [DllImport(Library, CallingConvention = C)] public static extern int zmq_errno();
        [DllImport(Library, CallingConvention = C)] public static extern IntPtr zmq_strerror(int number);

        public static string Error()
        {
            return Marshal.PtrToStringAnsi(zmq_strerror(zmq_errno()));
        }

        public static void Set(IntPtr socket, int option, byte[] value)
        {
            if (zmq_setsockopt(socket, option, value, (UIntPtr)(uint)value.Length) != 0)
                throw new EndsWith(2, "libzmq refuses option " + option + ": " + Error());
        }

        public static byte[] CString(string text)
        {
            return Encoding.UTF8.GetBytes(text + "\0");
        }
    }

    /// <summary>JSON to and from dictionaries, lists, strings, longs, doubles and booleans. Written in ASCII.</summary>
    public sealed class Json
    {
        private const int Deepest = 16;
        private readonly string text;
        private int at;

        private Json(string text)
        {
            this.text = text;
        }

        public static object Read(byte[] raw)
        {
            string text = new UTF8Encoding(false, true).GetString(raw);
            Json json = new Json(text.StartsWith("\uFEFF", StringComparison.Ordinal) ? text.Substring(1) : text);
            object value = json.Value(1);
            json.Blanks();
            if (json.at != json.text.Length) throw new FormatException("more after the value");
            return value;
        }

        public static byte[] Write(object value)
        {
            StringBuilder made = new StringBuilder();
            Write(value, made);
            return Encoding.ASCII.GetBytes(made.ToString());
        }

        private static void Write(object value, StringBuilder made)
        {
            IDictionary<string, object> map = value as IDictionary<string, object>;
            List<object> list = value as List<object>;
            if (map != null)
            {
                made.Append('{');
                bool isFirst = true;
                foreach (KeyValuePair<string, object> pair in map)
                {
                    if (!isFirst) made.Append(',');
                    isFirst = false;
                    Write(pair.Key, made);
                    made.Append(':');
                    Write(pair.Value, made);
                }
                made.Append('}');
            }
            else if (list != null)
            {
                made.Append('[');
                for (int index = 0; index < list.Count; index++)
                {
                    if (index > 0) made.Append(',');
                    Write(list[index], made);
                }
                made.Append(']');
            }
            else if (value is string) WriteText((string)value, made);
            else if (value is bool) made.Append((bool)value ? "true" : "false");
            else if (value is double)
            {
                string digits = ((double)value).ToString("R", CultureInfo.InvariantCulture);
                made.Append(digits.IndexOfAny(new[] { '.', 'E' }) < 0 ? digits + ".0" : digits);
            }
            else if (value == null) made.Append("null");
            else made.Append(Convert.ToString(value, CultureInfo.InvariantCulture));
        }

        private static void WriteText(string text, StringBuilder made)
        {
            made.Append('"');
            foreach (char letter in text)
            {
                if (letter == '"' || letter == '\\') made.Append('\\').Append(letter);
                else if (letter < ' ' || letter > '~') made.Append("\\u").Append(((int)letter).ToString("x4"));
                else made.Append(letter);
            }
            made.Append('"');
        }

        private void Blanks()
        {
            while (at < text.Length && " \t\r\n".IndexOf(text[at]) >= 0) at++;
        }

        private char Next()
        {
            if (at >= text.Length) throw new FormatException("it ends too early");
            return text[at++];
        }

        private bool Takes(char wanted)
        {
            Blanks();
            if (at >= text.Length || text[at] != wanted) return false;
            at++;
            return true;
        }

        private void Expect(char wanted)
        {
            if (!Takes(wanted)) throw new FormatException("no " + wanted + " at " + at);
        }

        private object Value(int depth)
        {
            if (depth > Deepest) throw new FormatException("too deep");
            if (Takes('{')) return Map(depth);
            if (Takes('[')) return List(depth);
            if (Takes('"')) return Text();
            int start = at;
            while (at < text.Length && "{}[],:\" \t\r\n".IndexOf(text[at]) < 0) at++;
            string word = text.Substring(start, at - start);
            if (word == "true" || word == "false") return word == "true";
            if (word == "null") return null;
            long whole;
            if (long.TryParse(word, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out whole)) return whole;
            return double.Parse(word, NumberStyles.Float, CultureInfo.InvariantCulture);
        }

        private Dictionary<string, object> Map(int depth)
        {
            Dictionary<string, object> made = new Dictionary<string, object>();
            if (Takes('}')) return made;
            do
            {
                Expect('"');
                string key = Text();
                Expect(':');
                made.Add(key, Value(depth + 1));
            }
            while (Takes(','));
            Expect('}');
            return made;
        }

        private List<object> List(int depth)
        {
            List<object> made = new List<object>();
            if (Takes(']')) return made;
            do made.Add(Value(depth + 1));
            while (Takes(','));
            Expect(']');
            return made;
        }

        private string Text()
        {
            StringBuilder made = new StringBuilder();
            for (char letter = Next(); letter != '"'; letter = Next())
            {
                if (letter != '\\')
                {
                    made.Append(letter);
                    continue;
                }
                char escape = Next();
                int known = "\"\\/bfnrt".IndexOf(escape);
                if (known >= 0) made.Append("\"\\/\b\f\n\r\t"[known]);
                else if (escape == 'u' && at + 4 <= text.Length)
                {
                    made.Append((char)ushort.Parse(text.Substring(at, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture));
                    at += 4;
                }
                else throw new FormatException("an unknown escape at " + at);
            }
            return made.ToString();
        }
    }

    /// <summary>The command line's words, and where they lead.</summary>
    public sealed class Arguments
    {
        private readonly Dictionary<string, string> given = new Dictionary<string, string>();

        public readonly double TimeoutS = 30;
        public readonly string Id = Guid.NewGuid().ToString("N");

        public Arguments(string[] words)
        {
            const string known = " --type --service --message --severity --timeout-s --id --address --key-file --state --golden ";
            for (int at = 0; at < words.Length; at++)
            {
                if (words[at] == "--json") continue;
                if (words[at] == "--msgpack") throw new EndsWith(2, "this sender speaks JSON only");
                if (words[at] == "--frames") given["--frames"] = "";
                else if (known.Contains(" " + words[at] + " ") && at + 1 < words.Length) given[words[at]] = words[++at];
                else throw new EndsWith(2, "'" + words[at] + "' is no option or has no value");
            }
            if (this["--type"] == null && this["--golden"] == null) throw new EndsWith(2, "--type is missing");
            if (Array.IndexOf(new[] { null, "low", "medium", "high", "critical" }, this["--severity"]) < 0)
                throw new EndsWith(2, "--severity is low, medium, high or critical");
            string seconds = this["--timeout-s"];
            if (seconds != null && !(double.TryParse(seconds, NumberStyles.Float, CultureInfo.InvariantCulture, out TimeoutS) && TimeoutS > 0))
                throw new EndsWith(2, "--timeout-s is a number of seconds");
            Id = this["--id"] ?? Id;
            if (!Regex.IsMatch(Id, @"\A[A-Za-z0-9._:-]{8,64}\z")) throw new EndsWith(2, "--id is 8 to 64 of A-Z a-z 0-9 . _ : -");
        }

        /// <summary>null: not given, or empty.</summary>
        public string this[string name]
        {
            get { return given.ContainsKey(name) && given[name] != "" ? given[name] : null; }
        }

        public bool FramesOnly
        {
            get { return given.ContainsKey("--frames"); }
        }

        /// <summary>null: no daemon has written its address yet. Asked again for every new socket: a daemon may move.</summary>
        public string FindAddress()
        {
            string variable = this["--state"] == null ? Variable("SELFHEAL_GUARDIAN") : null;
            if (this["--address"] != null || variable != null) return this["--address"] ?? variable;
            string file = Path.Combine(StateDirectory(), "guardian.address");
            return File.Exists(file) ? File.ReadAllText(file).Trim() : null;
        }

        /// <summary>The words of the client key file; null where the daemon runs without CURVE.</summary>
        public Dictionary<string, string> ReadKey()
        {
            string file = this["--key-file"] ?? Variable("SELFHEAL_KEY") ?? Path.Combine(StateDirectory(), "keys", "local.key");
            Dictionary<string, string> words = new Dictionary<string, string>();
            try
            {
                foreach (string line in File.ReadAllLines(file)) // takes a byte order mark off
                {
                    string[] parts = line.Split(new[] { ' ', '\t' }, 2, StringSplitOptions.RemoveEmptyEntries);
                    if (parts.Length == 2 && !line.StartsWith("#", StringComparison.Ordinal)) words[parts[0]] = parts[1].Trim();
                }
            }
            catch (Exception error)
            {
                if (!(error is IOException || error is UnauthorizedAccessException)) throw;
                throw new EndsWith(4, "no key: " + file + ": " + error.Message + " (looked at --key-file, $SELFHEAL_KEY, then there)");
            }
            if (words.ContainsKey("curve") && words["curve"] == "off") return null;
            foreach (string name in new[] { "public", "secret", "server" })
                if (!words.ContainsKey(name) || words[name].Length != 40)
                    throw new EndsWith(2, "no key: " + file + ": '" + name + "' is not 40 characters of Z85");
            return words;
        }

        private string StateDirectory()
        {
            if (this["--state"] != null || Variable("SELFHEAL_STATE") != null) return this["--state"] ?? Variable("SELFHEAL_STATE");
            if (Variable("XDG_STATE_HOME") != null) return Path.Combine(Variable("XDG_STATE_HOME"), "selfheal");
            string home = Variable("HOME") ?? Variable("USERPROFILE") ?? "";
            return Path.Combine(home, ".local", "state", "selfheal");
        }

        private static string Variable(string name)
        {
            string value = Environment.GetEnvironmentVariable(name);
            return string.IsNullOrEmpty(value) ? null : value;
        }
    }

    /// <summary>One DEALER socket, made anew when the daemon was silent too long: a refused handshake leaves a dead one.</summary>
    internal sealed class Link : IDisposable
    {
        private readonly Arguments args;
        private readonly Dictionary<string, string> key;
        private readonly IntPtr context = Zmq.zmq_ctx_new();
        private readonly byte[] buffer = new byte[131072];
        private readonly Stopwatch sinceHeard = new Stopwatch();
        private IntPtr socket = IntPtr.Zero;

        public string Address;

        public Link(Arguments args)
        {
            this.args = args;
            key = args.ReadKey();
            Open();
        }

        public double SilentS
        {
            get { return sinceHeard.Elapsed.TotalSeconds; }
        }

        public void Open()
        {
            Close();
            sinceHeard.Restart();
            Address = args.FindAddress();
            if (Address == null) return;
            socket = Zmq.zmq_socket(context, Zmq.Dealer);
            int[] options =
            {
                Zmq.Linger, 0, // never wait for a daemon that is gone when this program ends
                Zmq.Immediate, 1, // queue nothing towards a daemon that is not there
                Zmq.SndHwm, 200, Zmq.RcvHwm, 200, Zmq.HeartbeatIvl, 2000, Zmq.HeartbeatTimeout, 6000, Zmq.HeartbeatTtl, 9000,
                Zmq.HandshakeIvl, 5000, Zmq.ReconnectIvl, 100, Zmq.ReconnectIvlMax, 5000
            };
            for (int at = 0; at < options.Length; at += 2) Zmq.Set(socket, options[at], BitConverter.GetBytes(options[at + 1]));
            Zmq.Set(socket, Zmq.MaxMsgSize, BitConverter.GetBytes((long)buffer.Length));
            if (key != null)
            {
                Zmq.Set(socket, Zmq.PublicKey, Zmq.CString(key["public"]));
                Zmq.Set(socket, Zmq.SecretKey, Zmq.CString(key["secret"]));
                Zmq.Set(socket, Zmq.ServerKey, Zmq.CString(key["server"]));
            }
            if (Zmq.zmq_connect(socket, Zmq.CString(Address)) != 0)
                throw new EndsWith(2, "'" + Address + "' is no address: " + Zmq.Error());
        }

        /// <summary>false: there is no connection (yet).</summary>
        public bool Send(byte[][] frames)
        {
            if (socket == IntPtr.Zero) Open();
            if (socket == IntPtr.Zero) return false;
            for (int at = 0; at < frames.Length; at++)
            {
                int flags = Zmq.DontWait | (at < frames.Length - 1 ? Zmq.SendMore : 0);
                if (Zmq.zmq_send(socket, frames[at], (UIntPtr)(uint)frames[at].Length, flags) < 0) return false; // the first or none
            }
            return true;
        }

        /// <summary>null: nothing came within the wait.</summary>
        public List<byte[]> Receive(double waitS)
        {
            int waitMs = Math.Max(1, (int)(waitS * 1000));
            if (socket == IntPtr.Zero)
            {
                Thread.Sleep(waitMs);
                return null;
            }
            Zmq.Set(socket, Zmq.RcvTimeo, BitConverter.GetBytes(waitMs));
            List<byte[]> frames = new List<byte[]>();
            byte[] more = new byte[4];
            do
            {
                int size = Zmq.zmq_recv(socket, buffer, (UIntPtr)(uint)buffer.Length, 0);
                if (size < 0) return null;
                byte[] frame = new byte[Math.Min(size, buffer.Length)];
                Array.Copy(buffer, frame, frame.Length);
                frames.Add(frame);
                UIntPtr length = (UIntPtr)4u;
                Zmq.zmq_getsockopt(socket, Zmq.RcvMore, more, ref length);
            }
            while (BitConverter.ToInt32(more, 0) == 1);
            sinceHeard.Restart();
            return frames;
        }

        public void Dispose()
        {
            Close();
            Zmq.zmq_ctx_term(context);
        }

        private void Close()
        {
            if (socket != IntPtr.Zero) Zmq.zmq_close(socket);
            socket = IntPtr.Zero;
        }
    }

    public static class Sender
    {
        private const int MaxBodyBytes = 65536;
        private const double FirstResendS = 0.5, LastResendS = 30, SilenceS = 6, NotConnectedS = 0.1;

        public static int Main(string[] words)
        {
            return Run(words, Console.Out, Console.Error);
        }

        /// <summary>What the command line does; returns the exit code.</summary>
        public static int Run(string[] words, TextWriter output, TextWriter errors)
        {
            try
            {
                Arguments args = new Arguments(words);
                if (args["--golden"] != null) Golden(args["--golden"], output);
                else if (args.FramesOnly) foreach (byte[] frame in Frames(args)) output.WriteLine(Hex(frame));
                else using (Link link = new Link(args)) Deliver(link, args, output);
                return 0;
            }
            catch (EndsWith end)
            {
                errors.WriteLine(end.Message);
                return end.Code;
            }
        }

        private static byte[][] Frames(Arguments args)
        {
            Dictionary<string, object> body = new Dictionary<string, object>();
            body["type"] = args["--type"];
            body["severity"] = args["--severity"] ?? "high";
            body["source"] = Environment.MachineName;
            foreach (string name in new[] { "service", "message" })
                if (args["--" + name] != null) body[name] = args["--" + name];
            byte[] packed = Json.Write(body);
            if (packed.Length > MaxBodyBytes) // a much larger one would only end the connection, again and again
                throw new EndsWith(1, "refused too_large: the body has " + packed.Length + " bytes; at most " + MaxBodyBytes + " are taken");
            Encoding ascii = Encoding.ASCII;
            return new[] { ascii.GetBytes("SH1"), ascii.GetBytes("ALERT"), ascii.GetBytes("j"), ascii.GetBytes(args.Id), packed };
        }

        /// <summary>The same message under the same id, until the daemon has stored it and said what it decided.</summary>
        private static void Deliver(Link link, Arguments args, TextWriter output)
        {
            byte[][] frames = Frames(args);
            Stopwatch clock = Stopwatch.StartNew();
            Random chance = new Random(args.Id.GetHashCode());
            double nextSend = 0, waitS = FirstResendS;
            bool isStored = false;
            for (double now = 0; now < args.TimeoutS; now = clock.Elapsed.TotalSeconds)
            {
                if (now >= nextSend && link.Send(frames))
                {
                    nextSend = now + waitS * (0.8 + 0.4 * chance.NextDouble());
                    waitS = Math.Min(LastResendS, waitS * 2);
                }
                else if (now >= nextSend) nextSend = now + NotConnectedS;
                List<byte[]> answer = link.Receive(Math.Min(Math.Min(nextSend, args.TimeoutS), now + 1) - now);
                if (answer == null)
                {
                    if (link.SilentS > SilenceS)
                    {
                        link.Open();
                        nextSend = 0;
                    }
                    continue;
                }
                if (answer.Count != 5 || Ascii(answer[0]) != "SH1" || Ascii(answer[3]) != args.Id) continue;
                if (Ascii(answer[2]) != "j") throw new EndsWith(1, "the daemon answers in an encoding that was not asked for");
                string kind = Ascii(answer[1]);
                Dictionary<string, object> body = (Dictionary<string, object>)Json.Read(answer[4]);
                if (kind == "NACK" && true.Equals(Of(body, "permanent")))
                    throw new EndsWith(1, "refused " + Of(body, "code") + ": " + Of(body, "text"));
                if (kind == "NACK") nextSend = clock.Elapsed.TotalSeconds + Convert.ToDouble(Of(body, "retry_after_ms") ?? 1000L) / 1000;
                else if (kind == "STORED" && !isStored)
                {
                    isStored = true;
                    output.WriteLine("stored " + args.Id + ("duplicate".Equals(Of(body, "status")) ? " (duplicate)" : ""));
                    output.Flush();
                }
                else if (kind == "DECIDED" && isStored)
                {
                    output.WriteLine(("decided " + Of(body, "outcome") + " " + Of(body, "execution_id")).TrimEnd());
                    return;
                }
            }
            string seconds = args.TimeoutS.ToString(CultureInfo.InvariantCulture) + " s";
            if (isStored) throw new EndsWith(5, "no decision within " + seconds + "; the alert is stored");
            throw new EndsWith(4, "not reachable: " + (link.Address ?? "no guardian.address in the state directory") +
                ": no answer within " + seconds + " (does it run, and is the key right?)");
        }

        private static object Of(Dictionary<string, object> body, string name)
        {
            object value;
            return body.TryGetValue(name, out value) ? value : null;
        }

        private static string Ascii(byte[] frame)
        {
            return Encoding.ASCII.GetString(frame);
        }

        private static string Hex(byte[] frame)
        {
            return BitConverter.ToString(frame).Replace("-", "").ToLowerInvariant();
        }

        /// <summary>Read the golden vectors' JSON frames and write each body anew, as hexadecimal.</summary>
        private static void Golden(string file, TextWriter output)
        {
            Dictionary<string, object> all = (Dictionary<string, object>)Json.Read(File.ReadAllBytes(file));
            foreach (object one in (List<object>)all["messages"])
            {
                List<byte[]> frames = new List<byte[]>();
                foreach (object hex in (List<object>)((Dictionary<string, object>)one)["frames_hex"]) frames.Add(FromHex((string)hex));
                if (Ascii(frames[2]) == "j")
                    output.WriteLine(Ascii(frames[1]) + " " + Ascii(frames[3]) + " - " + Hex(Json.Write(Json.Read(frames[4]))));
            }
        }

        private static byte[] FromHex(string text)
        {
            byte[] made = new byte[text.Length / 2];
            for (int at = 0; at < made.Length; at++) made[at] = Convert.ToByte(text.Substring(2 * at, 2), 16);
            return made;
        }
    }
}

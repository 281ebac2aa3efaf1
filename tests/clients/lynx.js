// lynx: UDP, several stats in a packet, sample rates.
const Lynx = require("lynx");

const doors = JSON.parse(process.argv[2]);
const client = new Lynx("127.0.0.1", doors.udp, { scope: doors.prefix });
client.count("hits", 15);
client.count("hits", -3);
client.increment(["one", "two"]);
client.decrement("two");
client.gauge("level", 42.5);
client.set("users", "ada");
client.set("users", "grace");
for (let value = 1; value <= 100; value++) client.timing("latency", value);
client.createTimer("block").stop();
if (process.argv[3] === "stream") { // lynx is a stream too, which glues a rate to the type: |c@1|@1
  client.write("streamed:4|c\n");
  client.write("glued:4|c|@1\n");
}
for (let n = 0; n < 10; n++) client.increment("rated", 1); // draws with a generator of its own: |@1
setTimeout(() => client.close(), 200);

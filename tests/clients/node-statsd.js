// node-statsd: UDP, several stats at a time, tags.
const StatsD = require("node-statsd");

const doors = JSON.parse(process.argv[2]);
const client = new StatsD({ host: "127.0.0.1", port: doors.udp, prefix: `${doors.prefix}.`, global_tags: ["env:test"] });
client.increment("hits", 15, ["route:pay"]);
client.decrement("hits", 3, ["route:pay"]);
client.increment(["one", "two"]);
client.gauge("level", 42.5);
client.set("users", "ada");
client.unique("users", "grace");
for (let value = 1; value <= 100; value++) {
  client.timing("latency", value);
  client.histogram("size", value / 2);
}
Math.random = () => 0;
for (let n = 0; n < 10; n++) client.increment("rated", 1, 0.5);
setTimeout(() => client.close(), 200);

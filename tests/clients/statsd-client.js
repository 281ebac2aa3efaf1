// statsd-client: UDP and TCP.
const SDC = require("statsd-client");

const doors = JSON.parse(process.argv[2]);
for (const way of ["udp", "tcp"]) {
  const client = new SDC({
    host: "127.0.0.1",
    port: doors[way],
    tcp: way === "tcp",
    prefix: `${doors.prefix}.${way}`,
    tags: { env: "test" },
    socketTimeout: 100,
  });
  client.increment("first"); // over TCP it sends what it holds while it connects twice
  setTimeout(() => send(client, way), 500);
}

function send(client, way) {
  client.increment("hits", 15, { route: "pay" });
  client.decrement("hits", -3, { route: "pay" });
  client.counter("plain", 2);
  client.gauge("level", 10);
  client.gaugeDelta("level", 5);
  client.gaugeDelta("level", -3);
  client.set("users", "ada");
  client.set("users", "grace");
  for (let value = 1; value <= 100; value++) {
    client.timing("latency", value);
    client.histogram("size", value / 2);
    client.distribution("spread", value * 10);
  }
  client.raw(`${doors.prefix}.${way}.raw:4|c|@0.5`);
  setTimeout(() => client.close(), 500);
}

// hot-shots: DogStatsD over UDP, TCP, unix datagrams and a unix stream, Telegraf's dialect, buffering,
// aggregation.
const net = require("net");
const StatsD = require("hot-shots");

const doors = JSON.parse(process.argv[2]);
const ways = {
  udp: { host: "127.0.0.1", port: doors.udp },
  tcp: { host: "127.0.0.1", port: doors.tcp, protocol: "tcp" },
  uds: { path: doors.unixgram, protocol: "uds" },
  buffered: { host: "127.0.0.1", port: doors.udp, maxBufferSize: 1000 },
  aggregated: { host: "127.0.0.1", port: doors.udp, aggregation: true },
  telegraf: { host: "127.0.0.1", port: doors.influx, telegraf: true },
};

function send(way) {
  return new Promise((resolve, reject) => {
    if (way === "stream") ways.stream = { protocol: "stream", stream: net.connect(doors.unixstream) };
    const client = new StatsD({ prefix: `${doors.prefix}.${way}`, errorHandler: reject, ...ways[way] });
    client.increment("hits", 15, { route: "pay" });
    client.decrement("hits", 3, { route: "pay" });
    client.gauge("level", 42.5);
    client.set("users", "ada");
    client.unique("users", "grace");
    for (let value = 1; value <= 100; value++) {
      client.timing("latency", value);
      client.histogram("size", value / 2);
      client.distribution("spread", value * 10);
    }
    const draw = Math.random;
    Math.random = () => 0;
    for (let n = 0; n < 10; n++) client.increment("rated", 1, 0.5);
    Math.random = draw;
    if (way !== "telegraf") {
      client.gaugeDelta("moved", 10);
      client.gaugeDelta("moved", -3);
      client.event("deploy", "line one\nline two", { alert_type: "warning" }, { a: "1" });
      client.check("up", client.CHECKS.WARNING, { message: "slow | late" });
    }
    client.gauge("odd", NaN); // goes out as it is, and is refused as non_finite
    setTimeout(() => client.close((error) => (error ? reject(error) : resolve())), 100);
  });
}

(async () => {
  for (const way of process.argv.slice(3)) await send(way);
})();

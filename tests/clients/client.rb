# statsd-ruby: UDP, batches, sample rates. (Over TCP this version writes its lines without newlines.)
require "json"
require "statsd"

doors = JSON.parse(ARGV[0])
client = Statsd.new("127.0.0.1", doors["udp"])
client.namespace = doors["prefix"]
client.count("hits", 14)
client.increment("hits")
3.times { client.decrement("hits") }
client.gauge("level", 42.5)
client.set("users", "ada")
client.set("users", "grace")
(1..100).each { |value| client.timing("latency", value) }
client.time("block") { sleep 0.01 }
batch = Statsd::Batch.new(client)
batch.batch_size = 10
batch.easy { |packed| 55.times { packed.increment("piped") } }
client.define_singleton_method(:rand) { 0.0 }
10.times { client.increment("rated", 0.5) }

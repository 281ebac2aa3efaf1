# Net::Statsd: UDP, several stats at a time, sample rates.
use strict;
use warnings;

BEGIN { no warnings 'once'; *CORE::GLOBAL::rand = sub { 0 } }    # every draw of a sample is sent

use JSON::PP;
use Net::Statsd;

my $doors = decode_json($ARGV[0]);
my $prefix = $doors->{prefix};
$Net::Statsd::HOST = '127.0.0.1';
$Net::Statsd::PORT = $doors->{udp};

Net::Statsd::update_stats("$prefix.hits", 15);
Net::Statsd::update_stats(["$prefix.hits", "$prefix.other"], -3);
Net::Statsd::increment("$prefix.one");
Net::Statsd::decrement("$prefix.one") for 1 .. 3;
Net::Statsd::gauge("$prefix.level" => 42.5, "$prefix.below" => 0);
Net::Statsd::timing("$prefix.latency", $_) for 1 .. 100;
Net::Statsd::increment("$prefix.rated", 0.5) for 1 .. 10;

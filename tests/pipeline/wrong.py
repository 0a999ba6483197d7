"""Configs with one mistake each: the text, the key's path, a part of what was found, a part of what is right."""

from __future__ import annotations

HEAD = '[pipeline]\nname = "t"\nruntime_dir = "/run/colo"\n'
NET = HEAD + "[netdev.hn0]\n"
MIRROR = (
    NET
    + '[chardev.c0]\nbackend = "socket"\nhost = "::1"\nport = 1\n'
    + '[filter.m0]\ntype = "filter-mirror"\nnetdev = "hn0"\noutdev = "c0"\n'
)
COMPARE = (
    HEAD
    + "".join(f'[chardev.{c}]\nbackend = "socket"\npath = "/run/{c}"\n' for c in ("p", "s", "o"))
    + '[compare.comp0]\nprimary_in = "p"\nsecondary_in = "s"\noutdev = "o"\n'
)
LINKED = (
    NET
    + '[chardev.c0]\nbackend = "ring"\n'
    + '[filter.r0]\ntype = "filter-redirector"\nnetdev = "hn0"\nqueue = "rx"\nindev = "c0"\n'
    + '[filter.r1]\ntype = "filter-redirector"\nnetdev = "hn0"\nqueue = "tx"\noutdev = "c0"\n'
)

WRONG = [
    ("[netdev.hn0]", "pipeline.name", "nothing", "a name"),
    ('pipeline = 3\n[netdev.hn0]', "pipeline", "3", "a table"),
    ('[pipeline]\nname = "Prime"\n[netdev.hn0]', "pipeline.name", '"Prime"', "a-z 0-9 -"),
    ('[pipeline]\nname = "-x"\n[netdev.hn0]', "pipeline.name", '"-x"', "a-z 0-9 -"),
    (HEAD, "netdev", "nothing", "no packet can move"),
    (NET + "[supervisro]\n", "supervisro", "an unknown table", '"supervisor"'),
    (NET + '[filters.m0]\ntype = "x"\n', "filters", "an unknown table", '"filter"'),
    (NET + "[supervisor]\nintensty = 3\n", "supervisor.intensty", "an unknown key", '"intensity"'),
    (NET + "[supervisor]\nintensity = true\n", "supervisor.intensity", "true", "a whole number from 0"),
    (NET + "[supervisor]\nintensity = 1.5\n", "supervisor.intensity", "1.5", "a whole number"),
    (NET + "[supervisor]\nperiod_ms = 0\n", "supervisor.period_ms", "0", "from 1 to"),
    (NET + '[supervisor]\nstrategy = "one"\n', "supervisor.strategy", '"one"', '"one_for_one", "rest_for_one" or'),
    (NET + "[supervisor]\nbackoff_initial_ms = 9000\n", "supervisor.backoff_initial_ms", "9000", "backoff_max_ms"),
    (NET + '[log]\nformat = "xml"\n', "log.format", '"xml"', '"auto", "console" or "json"'),
    (NET.replace("[netdev", "ring_size = 3000000\n[netdev"), "pipeline.ring_size", "3000000", '"4MiB"'),
    (NET.replace("[netdev", 'ring_size = "64KiB"\n[netdev'), "pipeline.ring_size", '"64KiB"', '"256KiB"'),
    (NET.replace("[netdev", 'ring_size = "4 apples"\n[netdev'), "pipeline.ring_size", '"4 apples"', "power of two"),
    (NET.replace("[netdev", "ring_size = true\n[netdev"), "pipeline.ring_size", "true", "power of two"),
    (NET.replace("[netdev", "ring_size = -4\n[netdev"), "pipeline.ring_size", "-4", "power of two"),
    (HEAD.replace("/run/colo", "/" + "d" * 100) + "[netdev.a]", "pipeline.runtime_dir", "108 bytes", "at most 107"),
    (NET + 'network = "tap"\n', "netdev.hn0.network", '"tap"', "a table"),
    (NET + "network = { }\n", "netdev.hn0.network.backend", "nothing", '"stream"'),
    (NET + 'network = { backnd = "null" }\n', "netdev.hn0.network.backend", '"backnd"', '"stream"'),
    (NET + 'network = { backend = "tpa" }\n', "netdev.hn0.network.backend", '"tpa"', '"tap"'),
    (NET + 'netwrok = { backend = "null" }\n', "netdev.hn0.netwrok", "table", '"network"'),
    (NET + 'guest = { backend = "tap" }\n', "netdev.hn0.guest.ifname", "nothing", "interface"),
    (NET + 'guest = { backend = "tap", ifname = "sixteen-letters-" }\n', "netdev.hn0.guest.ifname", "sixteen", "1 to"),
    (NET + 'guest = { backend = "packet" }\n', "netdev.hn0.guest.ifname", "nothing", "interface"),
    (NET + 'guest = {backend="packet", ifname="a", persist=true}\n', "netdev.hn0.guest.persist", "kind", "tap"),
    (
        NET + 'network = {backend="packet", ifname="a", vnet_hdr=true}\nguest = {backend="tap", ifname="b"}\n',
        "netdev.hn0.network.vnet_hdr", "true", "tap or packet",
    ),
    (
        NET + 'network = {backend="packet", ifname="a"}\nguest = {backend="tap", ifname="a"}\n',
        "netdev.hn0.guest.ifname", '"a"', "netdev.hn0.network has this one",
    ),
    (
        NET + 'network = {backend="packet", ifname="a", record="/tmp/x"}\nguest = {backend="pcap", write="/tmp/x"}\n',
        "netdev.hn0.guest.write", "/tmp/x", "a file of its own",
    ),
    (NET + 'guest = { backend = "tap", ifname = "a", wait = true }\n', "netdev.hn0.guest.wait", "unknown", "one of:"),
    (NET + 'guest = {backend="tap", ifname="a", vnet_hdr_len=11}\n', "netdev.hn0.guest.vnet_hdr_len", "11", "10 or 12"),
    (NET + 'guest = { backend = "pcap" }\n', "netdev.hn0.guest", "neither read nor write", "capture"),
    (NET + 'guest = { backend = "pcap", read = "no.pcap" }\n', "netdev.hn0.guest.read", "/nowhere/no.pcap", "is there"),
    (NET + 'guest = { backend = "pcap", write = "x.pcap" }\n', "netdev.hn0.guest.write", "/nowhere", "folder"),
    (NET + 'guest = { backend = "pcap", write = "/tmp/x", speed = 0 }\n', "netdev.hn0.guest.speed", "0", "above 0"),
    (NET + 'guest = { backend = "stream" }\n', "netdev.hn0.guest", "no address", "host and port, or path"),
    (NET + 'guest = { backend = "stream", host = "a" }\n', "netdev.hn0.guest", "only a host", "host and port"),
    (NET + 'guest = { backend = "stream", path = "/a", port = 1 }\n', "netdev.hn0.guest", "path and host", "either"),
    (NET + f'guest = {{ backend = "stream", path = "/{"a" * 107}" }}\n', "netdev.hn0.guest.path", "108 bytes", "107"),
    (
        NET + 'network = {backend="tap", ifname="a", vnet_hdr=true}\nguest = {backend="stream", path="/a"}\n',
        "netdev.hn0.network.vnet_hdr", "true", "false",
    ),
    (
        NET + 'network = {backend="tap", ifname="a"}\nguest = {backend="tap", ifname="b", vnet_hdr=true}\n',
        "netdev.hn0.guest.vnet_hdr", "true", "other side",
    ),
    (
        NET + 'network = {backend="tap", ifname="a"}\nguest = {backend="tap", ifname="a"}\n',
        "netdev.hn0.guest.ifname", '"a"', "netdev.hn0.network has this one",
    ),
    (
        NET + 'network = {backend="pcap", write="/tmp/x"}\nguest = {backend="pcap", write="/tmp/x"}\n',
        "netdev.hn0.guest.write", "/tmp/x", "a file of its own",
    ),
    (
        NET + "".join(f'{s} = {{backend="stream", path="/a", server=true}}\n' for s in ("network", "guest")),
        "netdev.hn0.guest", "a second server at /a", "an address of its own",
    ),
    (MIRROR + '[chardev."a b"]\nbackend = "ring"\n', "chardev.a b", '"a b"', "an id"),
    (MIRROR.replace("::1", ""), "chardev.c0.host", '""', "a host's name or address"),
    (MIRROR.replace("::1", "exa..mple"), "chardev.c0.host", '"exa..mple"', "1 to 63 characters"),
    (MIRROR.replace("::1", "a" * 64), "chardev.c0.host", "aaa", "1 to 63 characters"),
    (MIRROR.replace("::1", "a." * 127), "chardev.c0.host", "a.a", "at most 253"),
    (MIRROR.replace("::1", "a b"), "chardev.c0.host", '"a b"', "without blanks"),
    (MIRROR.replace("::1", " ::1"), "chardev.c0.host", '" ::1"', "without blanks"),
    (MIRROR.replace("::1", "a\\u0000b"), "chardev.c0.host", "a", "without blanks"),
    (MIRROR.replace('"::1"', "1"), "chardev.c0.host", "1", "a host's name"),
    (NET + 'guest = {backend="stream", host="a..b", port=1}\n', "netdev.hn0.guest.host", '"a..b"', "1 to 63"),
    (NET + 'guest = {backend="stream", host="a", port=0}\n', "netdev.hn0.guest.port", "0", "from 1 to 65535"),
    (MIRROR.replace("port = 1", "port = 70000"), "chardev.c0.port", "70000", "from 1 to 65535"),
    (MIRROR.replace("port = 1", 'port = 1\nserver = "on"'), "chardev.c0.server", '"on"', "without quotes"),
    (MIRROR.replace("port = 1", "port = 1\nreconnect = 0"), "chardev.c0.reconnect", "0", "above 0"),
    (MIRROR.replace('"socket"', '"sockt"'), "chardev.c0.backend", '"sockt"', '"socket"'),
    (MIRROR.replace('outdev = "c0"', 'outdev = "c1"'), "filter.m0.outdev", '"c1"', '"c0"'),
    (MIRROR.replace('outdev = "c0"', ""), "filter.m0.outdev", "nothing", "an id"),
    (MIRROR.replace('netdev = "hn0"', 'netdev = "hn1"'), "filter.m0.netdev", '"hn1"', '"hn0"'),
    (MIRROR.replace("filter-mirror", "filter-miror"), "filter.m0.type", '"filter-miror"', '"filter-mirror"'),
    (MIRROR + 'queue = "both"\n', "filter.m0.queue", '"both"', '"tx", "rx" or "all"'),
    (MIRROR + 'quue = "tx"\n', "filter.m0.quue", "an unknown key", '"queue"'),
    (MIRROR + 'indev = "c0"\n', "filter.m0.indev", "another kind", "filter-redirector"),
    (MIRROR + 'status = "yes"\n', "filter.m0.status", '"yes"', '"on" or "off"'),
    (MIRROR + 'position = "first"\n', "filter.m0.position", '"first"', '"head"'),
    (MIRROR + 'position = "id=m0"\n', "filter.m0.position", '"id=m0"', "another filter"),
    (MIRROR + 'position = "id=m1"\n', "filter.m0.position", '"id=m1"', '"m0"'),
    (MIRROR + 'insert = "after"\n', "filter.m0.insert", '"after"', '"behind" or "before"'),
    (LINKED.replace('"tx"', '"tx"\nposition = "id=r2"') + '[filter.r2]\ntype="filter-rewriter"\nnetdev="hn0"',
     "filter.r1.position", "defined later", "[filter.r2] above"),
    (LINKED + '[netdev.hn1]\n[filter.w]\ntype="filter-rewriter"\nnetdev="hn1"\nposition="id=r0"',
     "filter.w.position", 'on netdev "hn0"', 'on netdev "hn1"'),
    (NET + '[filter.w]\ntype = "filter-rewriter"\nnetdev = "hn0"\nqueue = "tx"', "filter.w.queue", '"tx"', '"all"'),
    (NET + '[filter.r]\ntype = "filter-redirector"\nnetdev = "hn0"', "filter.r", "neither", "indev, outdev"),
    (MIRROR.replace("filter-mirror", "filter-redirector") + 'indev = "c0"', "filter.m0.outdev", "indev too", "another"),
    (MIRROR + '[chardev.c1]\nbackend="socket"\npath="/x"', "chardev.c1", "nobody uses", "an object"),
    (NET + '[chardev.c1]\nbackend="ring"', "chardev.c1", "nobody uses", "reads it"),
    (MIRROR.replace('"socket"\nhost = "::1"\nport = 1', '"ring"'), "chardev.c0", "only filter.m0.outdev", "reads"),
    (LINKED.replace('\noutdev = "c0"', '\nindev = "c0"'), "filter.r1.indev", '"c0"', "filter.r0.indev reads"),
    (LINKED.replace('\nindev = "c0"', '\noutdev = "c0"'), "filter.r1.outdev", '"c0"', "filter.r0.outdev writes"),
    (LINKED + "vnet_hdr_support = true\n", "filter.r0.vnet_hdr_support", "false", "filter.r1 has true"),
    (LINKED.replace('"rx"', '"tx"'), "chardev.c0", "a loop: r", "r0 and r1"),
    (COMPARE + 'compare_timeout = "3s"\n', "compare.comp0.compare_timeout", '"3s"', "ms"),
    (COMPARE + "max_queue_size = 0\n", "compare.comp0.max_queue_size", "0", "from 1"),
    (COMPARE + 'hold_memory = "1KiB"\n', "compare.comp0.hold_memory", '"1KiB"', "from 1MiB"),
    (COMPARE + 'notify_dev = "o"\n', "compare.comp0.notify_dev", "outdev too", "of its own"),
    (COMPARE.replace('secondary_in = "s"', 'secondary_in = "p"'), "compare.comp0.secondary_in", "primary_in", "own"),
    (COMPARE + 'notify_dev = "n"\n[chardev.n]\nbackend="ring"', "chardev.n.backend", '"ring"', '"socket"'),
    (COMPARE + "[netdev.o]\n[stage.comp]\n", "stage.comp", '"comp"', '"comp0"'),
    (COMPARE + "[stage.comp0]\ncpus = []\n", "stage.comp0.cpus", "[]", "a list"),
    (COMPARE + "[stage.comp0]\ncpus = [1, 1]\n", "stage.comp0.cpus", "[1, 1]", "different"),
    (COMPARE + '[stage.comp0]\nidle = "spin"\n', "stage.comp0.idle", '"spin"', '"busy_spin"'),
    (COMPARE + '[stage.p]\nprocess="x"\nidle="busy_spin"\n[stage.s]\nprocess="x"\nidle="doorbell"\n',
     "stage.s.idle", '"doorbell"', "busy_spin"),
    (LINKED + "[stage.c0]\n", "stage.c0", "in memory", "no process"),
    (MIRROR.replace("c0", "m0"), "filter.m0", '"m0"', "a chardev has this one"),
    (MIRROR.replace("m0", '"hn0.guest"'), "filter.hn0.guest", '"hn0.guest"', "a netdev has this one"),
    (MIRROR.replace("[filter.m0]", "[filter.m.0]"), "filter.m.type", 'a table "0"', '[filter."m.0"]'),
]  # fmt: skip

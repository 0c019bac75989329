"""CPU, latency and system calls per request. Each function measures with a rig and prints a table of benches/README.md."""
import http.client, json, math, re, signal, socket, statistics, subprocess, sys, time

import rig as on
from rig import PEERS, ROUTES, Samples, markdown, name, note

WRK_OVER_APPS = '''-- Requests over all hosts and over paths of two routes and of none but the host's; not in the order of the table.
local requests, turn = {}, 0
function init(arguments)
  local count, paths = tonumber(arguments[1]), {"/part3/api/users/17", "/", "/part9/api"}
  for n = 0, 3 * math.max(count, 64) - 1 do
    requests[#requests + 1] = wrk.format("GET", paths[n % 3 + 1], {Host = "app" .. (n * 7919 % count) .. ".bench"})
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
'''


def turns(rig, of):
    """All of them in each round, every other round backwards."""
    for turn in range(rig.args.rounds):
        yield from list(of)[:: -1 if turn % 2 else 1]


def cells(rig, largest='/1m'):
    paths = [p for p in rig.args.paths.split(',') if p != '/1m' or largest == p]
    return [(path, up) for path in paths for up in rig.args.upstream.split(',')]


def head(rig, *first):
    """The columns of the proxies, and those of the ratios."""
    routers = rig.args.routers
    ratios = [f"of {name(p)}'s" if len(routers) == 1 else f'{r} of {name(p)}' for r in routers for p in PEERS]
    return [*first, *map(name, rig.kinds), *ratios]


def ratios(rig, got, *of):
    """Those of one row, as numbers."""
    return {(r, p): got.ratio((r, *of), (p, *of)) for r in rig.args.routers for p in PEERS}


def cpu(rig):
    """Microseconds of CPU per request."""
    rig.origin()
    proxies = {(kind, up): rig.proxy(kind, up) for up in rig.args.upstream.split(',') for kind in rig.kinds}
    got, rows, small = Samples(), [], []
    for path in rig.args.paths.split(','):
        note(f'cpu {path}')
        for kind, up in turns(rig, proxies):
            pid, port = proxies[kind, up]
            before = on.cpu(pid)
            count = rig.load(port, path, 16 if path == '/1m' else 64)
            got[kind, path, up].append((on.cpu(pid) - before) / count * 1e6)
    for path, up in cells(rig):
        of = ratios(rig, got, path, up)
        small += [of] if path != '/1m' else []
        figures = (got.median(kind, path, up) for kind in rig.kinds)
        rows.append([f'{name(path)}, {name(up)}', *(f'{us:.0f}' if us > 100 else f'{us:.1f}' for us in figures), *(f'{r:.2f}' for r in of.values())])
    print('Microseconds of user and system time per request:\n')
    markdown(head(rig, 'body, upstream'), rows)
    if small:
        means = {pair: math.exp(statistics.mean(math.log(of[pair]) for of in small)) for pair in small[0]}
        told = [f"{mean:.2f} of {name(peer)}'s" + (f' ({router})' if len(rig.args.routers) > 1 else '') for (router, peer), mean in means.items()]
        print(f'The geometric mean of the {len(small)} small ones is {", ".join(told)}.\n')


# A round whose load was later than this at the 99th percentile, in microseconds, is measured again, so often at most; the most punctual one counts.
LATE, TRIES = 300, 3


def punctual(rig, *what):
    """A round in which the load was on time, or nearly."""
    rounds = []
    for _ in range(TRIES):
        rounds.append(ended(rig.rate(*what)))
        if rounds[-1]['delay_p99'] <= LATE:
            break
    return min(rounds, key=lambda came: came['delay_p99']) | {'failed': sum(came['failed'] for came in rounds)}


def latency(rig):
    """p50 and p99 at half of what the faster peer reaches, from the moment at which a request was meant to go."""
    # The upstream never waits for the processor that it shares with the load.
    rig.origin('chrt', '--fifo', '1')
    got, rows, failed, delays = Samples(), [], 0, []
    for path, up in cells(rig, largest='/1k'):
        note(f'latency {path} {up}')
        ports = {kind: rig.proxy(kind, up)[1] for kind in rig.kinds}
        per_second = rig.half(path, up, ports)
        for kind in turns(rig, ports):
            came = punctual(rig, ports[kind], path, per_second, 2 * rig.args.seconds)
            failed += came['failed']
            delays.append(came['delay_p99'])
            for part in ('p50', 'p99'):
                got[kind, part, path, up].append(came[part])
        peaks = rig.peaks.get((path, up), {})
        of = ratios(rig, got, 'p99', path, up)
        figures = (f'{got.median(kind, "p50", path, up):.0f}, {got.median(kind, "p99", path, up):.0f}' for kind in rig.kinds)
        rows.append([f'{name(path)}, {name(up)}', ', '.join(f'{peak:,}' for peak in peaks.values()) or 'not measured', f'{per_second:,}',
                     *figures, *(f'{r:.2f}' for r in of.values())])
    print('Microseconds from the moment at which a request was meant to go to the end of its answer, median and 99th percentile; '
          'the ratios are those of the latter:\n')
    markdown(head(rig, 'body, upstream', "peers' peaks", 'requests/s'), rows)
    print(f'{failed} requests failed. 99% of the requests of a round went at most {statistics.median(delays):.0f} us late, in the worst round {max(delays):.0f} us.\n')


def ended(rate):
    """What the program that keeps a rate says."""
    out = rate.communicate()[0]
    if rate.returncode:
        sys.exit('the load ended too soon, see above')
    return json.loads(out)


class Control(http.client.HTTPConnection):
    """To the control socket of a router."""

    def __init__(self, path):
        super().__init__('router')
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def put(self, table):
        """Puts a table as slotd does; seconds until every thread of the router uses it."""
        begun = time.perf_counter()
        self.request('PUT', '/table', table, {'Content-Type': 'application/json'})
        answer = self.getresponse()
        said = answer.read()
        if answer.status != 200:
            sys.exit(f'the router did not take a table: {said.decode()}')
        return time.perf_counter() - begun


def swap(rig):
    """A table of 1,000 apps is replaced many times a second under load, and is not."""
    count, seconds, per_second = 1000, 2 * rig.args.seconds, rig.args.swaps
    rig.origin()
    peers = {kind: rig.proxy(kind, 'tcp')[1] for kind in PEERS}
    rate = rig.half('/', 'tcp', peers)
    for router in rig.args.routers:
        note(f'swap {router}')
        pid, port = rig.proxy(router, 'tcp', apps=count)
        control = Control(rig.control(port))
        tables = on.tables(count, f'127.0.0.1:{rig.origin_port}')
        next(tables)
        ended(rig.rate(port, '/', rate, 1, count))
        got, took, size = {0: [], per_second: []}, [], 0
        for swaps in turns(rig, got):
            # Made beforehand: the load has little enough of its processor.
            bodies = [next(tables).encode() for _ in range(swaps * seconds)]
            load = rig.rate(port, '/', rate, seconds, count)
            begun = time.monotonic()
            for number, body in enumerate(bodies):
                time.sleep(max(0, begun + number / swaps - time.monotonic()))
                took.append(control.put(body) * 1000)
                size = len(body)
            got[swaps].append(ended(load))
        print(f'{name(router)}, {rate:,} requests a second over {count:,} apps with {ROUTES} routes each, one of which each swap switches to its other slot:\n')
        rows = []
        for swaps, came in got.items():
            middle = [f'{statistics.median(c[part] for c in came) / 1000:.2f}' for part in ('p50', 'p99', 'p999')]
            rows.append([f'{swaps or "no"} swaps a second', f'{sum(c["answered"] for c in came):,}', f'{sum(c["failed"] for c in came)}',
                         *middle, f'{max(c["slowest"] for c in came) / 1000:.1f}'])
        markdown(['', 'answered', 'failed', 'p50, ms', 'p99', 'p99.9', 'slowest'], rows)
        before = on.cpu_of_threads(pid)
        alone = [control.put(next(tables)) * 1000 for _ in range(20)]
        spent = {thread: 1000 * (seconds - before[thread]) / len(alone) for thread, seconds in on.cpu_of_threads(pid).items()}
        serving = sum(ms for thread, ms in spent.items() if on.serves(thread))
        print(f'A swap takes {statistics.median(took):.1f} ms, at most {max(took):.1f} ms ({len(took)} swaps, a table of {size / 1000:,.0f} kB); '
              f'without load {statistics.median(alone):.1f} ms, and the thread that serves spends {serving:.1f} ms of CPU on it, all others {sum(spent.values()) - serving:.1f} ms.\n')


def apps(rig):
    """CPU per request by how many apps the table has."""
    counts = [1, 10, 100, 1000]
    rig.origin()
    script = rig.put('apps.lua', WRK_OVER_APPS)
    got = Samples()
    proxies = {(kind, count): rig.proxy(kind, 'tcp', apps=count) for kind in rig.args.routers for count in counts}

    def once(kind, count):
        pid, port = proxies[kind, count]
        before = on.cpu(pid)
        done = rig.load(port, '/', script=(f'-s{script}', '--', str(count)))
        return (on.cpu(pid) - before) / done * 1e6

    note('apps')
    for kind, count in proxies:
        # Each app has connections to its upstream of its own; here they are opened.
        once(kind, count)
    for kind, count in turns(rig, proxies):
        got[kind, count].append(once(kind, count))
    print(f'Microseconds of CPU per request, by apps in the table ({ROUTES} routes each, requests over all of them):\n')
    rows = [[name(kind), *(f'{got.median(kind, c):.1f} ({got.ratio((kind, c), (kind, 1)):.2f})' for c in counts)] for kind in rig.args.routers]
    markdown(['', *(f'{count:,}' for count in counts)], rows)


def threads(rig):
    """Two threads beside one: CPU per request, and how even the shares of connections and of CPU are."""
    rig.origin()
    rows = []
    for router in rig.args.routers:
        note(f'threads {router}')
        proxies, got = {count: rig.proxy(router, 'tcp', count) for count in (1, 2)}, Samples()
        for count in turns(rig, proxies):
            pid, port = proxies[count]
            before = on.cpu_of_threads(pid)
            load = rig.wrk(port, '/')
            time.sleep(rig.args.seconds / 2)
            watched = on.connections_of_threads(pid, port)
            done = on.answered(load)
            used = [spent - before[thread] for thread, spent in on.cpu_of_threads(pid).items() if on.serves(thread)]
            got[count,].append(sum(used) / done * 1e6)
            if count == 2:
                got['cpu',].append(max(used) / sum(used))
                got['connections',].append(max(watched) / sum(watched))
        pid, port = proxies[2]
        one_by_one = [socket.create_connection(('127.0.0.1', port)) for _ in range(1000)]
        for client in one_by_one:
            client.sendall(b'GET / HTTP/1.1\r\nHost: bench\r\n\r\n')
            client.recv(4096)
        watched = on.connections_of_threads(pid, port)
        rows.append([name(router), *(f'{got.median(count):.2f}' for count in proxies), f'{got.ratio((2,), (1,)):.2f}',
                     *(f'{got.median(of):.0%} (at most {max(got[of,]):.0%})' for of in ('connections', 'cpu')), f'{max(watched) / sum(watched):.0%}'])
    markdown(['', 'one thread, us', 'two, us', 'ratio', "busier thread's connections", "busier thread's CPU", 'of 1,000 that came one by one'], rows)


def calls(rig):
    """System calls per request, as strace(1) counts them."""
    rig.origin()
    rows = []
    for path, up in cells(rig):
        note(f'calls {path} {up}')
        row = [f'{name(path)}, {name(up)}']
        for kind in rig.kinds:
            pid, port = rig.proxy(kind, up)
            out = f'{rig.dir}/strace'
            attach = [part for p in on.family(pid) for part in ('-p', str(p))]
            strace = subprocess.Popen(['strace', '-f', '-c', '-o', out, *attach], stderr=subprocess.PIPE, text=True)
            for _ in on.family(pid):
                # It says a line of each process that it is attached to.
                strace.stderr.readline()
            count = rig.load(port, path, 16 if path == '/1m' else 64)
            strace.send_signal(signal.SIGINT)
            strace.communicate()
            lines = [line.split() for line in open(out) if re.match(r'\s+\d', line)]
            seen = {line[-1]: int(line[3]) / count for line in lines if line[-1] != 'total' and int(line[3]) > count / 30}
            row.append(', '.join(f'{each:.2f} {call}' for call, each in sorted(seen.items(), key=lambda c: -c[1])))
        rows.append(row)
    markdown(['per request', *map(name, rig.kinds)], rows)

"""What `benches/router` measures with: an upstream, proxies before it, load, and what the kernel says of them."""
import collections, json, os, re, shutil, socket, statistics, subprocess, sys, tempfile, time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEERS = ['nginx', 'haproxy']
NAMES = {'nginx': 'nginx', 'haproxy': 'HAProxy', 'slot': 'slot-router', '/': '12 B', '/1k': '1 KiB', '/1m': '1 MiB', 'tcp': 'TCP'}
# The proxy has one processor to itself.
PROXY, LOAD = 0, 1
ROUTES = 10

NGINX_ORIGIN = '''user root; worker_processes 1; pid {dir}/origin.pid; error_log /dev/null; daemon off;
events {{ worker_connections 10000; }}
http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 3600s;
 server {{ listen 127.0.0.1:{port} backlog=4096; listen unix:{dir}/origin.sock; root {dir};
  location = / {{ return 200 "hello world\\n"; }} location /part {{ return 200 "hello world\\n"; }} location / {{ }} }} }}'''
NGINX = '''user root; worker_processes 1; pid {dir}/{name}.pid; error_log /dev/null; daemon off;
events {{ worker_connections 10000; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; proxy_buffering off; proxy_read_timeout 3600s;
 upstream b {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
 server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_http_version 1.1;
  proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; proxy_pass http://b; }} }} }}'''
HAPROXY = '''global
 nbthread 1
 maxconn 9500
defaults
 mode http
 http-reuse always
 timeout client 3600s
 timeout server 3600s
 timeout connect 5s
frontend f
 bind 127.0.0.1:{port}
 option forwardfor
 default_backend b
backend b
 server s1 {upstream}
'''


class Rig:
    """The processes of one run, in a directory that goes with them."""

    def __init__(self, args):
        self.args, self.procs, self.ports, self.peaks = args, {}, unused_ports(), {}
        self.kinds = [*PEERS, *args.routers]
        self.dir = tempfile.mkdtemp(prefix='slot-bench-')
        os.chmod(self.dir, 0o755)
        self.put('1k', b'x' * 1024)
        self.put('1m', os.urandom(1 << 20))
        self.origin_port = next(self.ports)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for proc in self.procs.values():
            proc.terminate()
        for proc in self.procs.values():
            end(proc)
        shutil.rmtree(self.dir, ignore_errors=True)

    def put(self, name, content):
        with open(f'{self.dir}/{name}', 'wb') as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return f'{self.dir}/{name}'

    def start(self, name, command, processor=None):
        self.procs[name] = subprocess.Popen(pinned(command, processor), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.procs[name].pid

    def origin(self, *before):
        """Starts the upstream, by a command `before` it."""
        config = self.put('origin.conf', NGINX_ORIGIN.format(dir=self.dir, port=self.origin_port))
        self.start('origin', [*before, 'nginx', '-c', config], LOAD)
        answers(self.origin_port)

    def proxy(self, kind, upstream, threads=1, apps=0):
        """Starts a proxy; returns its process and its port. With apps its table has so many, with ten routes each."""
        port = next(self.ports)
        name = f'{kind}-{port}'
        to = f'127.0.0.1:{self.origin_port}' if upstream == 'tcp' else f'unix:{self.dir}/origin.sock'
        if kind == 'nginx':
            command = ['nginx', '-c', self.put(name, NGINX.format(dir=self.dir, name=name, port=port, upstream=to))]
        elif kind == 'haproxy':
            command = ['haproxy', '-db', '-f', self.put(name, HAPROXY.format(port=port, upstream=to.removeprefix('unix:')))]
        else:
            content = next(tables(apps, to)) if apps else table(1, [app('bench', '*', ['/'], to)])
            command = [self.args.routers[kind], '--listen', f'127.0.0.1:{port}', '--table', self.put(name, content),
                       '--threads', str(threads), '--control', self.control(port)]
        pid = self.start(name, command, PROXY if threads == 1 else None)
        answers(port)
        return pid, port

    def stop(self, kind, port):
        end(self.procs.pop(f'{kind}-{port}'))

    def control(self, port):
        return f'{self.dir}/{port}.control'

    def wrk(self, port, path, connections=64, script=()):
        """Starts as many requests as can be answered, over so many connections; `answered` ends it."""
        command = ['wrk', '-t1', f'-c{connections}', f'-d{self.args.seconds}s', *script[:1], f'http://127.0.0.1:{port}{path}', *script[1:]]
        return subprocess.Popen(pinned(command, LOAD), stdout=subprocess.PIPE, text=True)

    def load(self, *args, **more):
        """As `wrk`, to the end; how many were answered."""
        return answered(self.wrk(*args, **more))

    def rate(self, port, path, per_second, seconds, hosts=0):
        """Starts requests at a fixed rate over 64 connections, for so many apps' hosts; it prints what came of them as JSON."""
        command = [self.args.rate_program, str(port), path, str(per_second), str(seconds), '64', str(hosts)]
        return subprocess.Popen(pinned(command, LOAD), stdout=subprocess.PIPE, text=True)

    def half(self, path, upstream, ports):
        """Half of the rate that the faster peer reaches, which is measured once."""
        if self.args.rate:
            return self.args.rate
        if (path, upstream) not in self.peaks:
            self.peaks[path, upstream] = {
                kind: round(statistics.median(self.load(ports[kind], path) / self.args.seconds for _ in range(3))) for kind in PEERS
            }
        return round(max(self.peaks[path, upstream].values()) / 2)


def end(proc):
    proc.terminate()
    try:
        proc.wait(5)
    except subprocess.TimeoutExpired:
        proc.kill()
        proc.wait()


def pinned(command, processor):
    return command if processor is None else ['taskset', '-c', str(processor), *command]


def answered(wrk):
    """How many requests were answered; says what went wrong."""
    out = wrk.communicate()[0]
    if wrong := re.search(r'Non-2xx.*|Socket errors.*', out):
        note(f'! {wrong[0]}')
    return max(1, int(re.search(r'(\d+) requests in', out)[1]))


def build_rate():
    """Builds the program that keeps a rate; returns its path."""
    target = f'{os.environ.get("CARGO_TARGET_DIR", REPOSITORY + "/target")}/rate'
    manifest = f'{REPOSITORY}/benches/rate/Cargo.toml'
    subprocess.run(['cargo', 'build', '-q', '--locked', '--release', '--manifest-path', manifest, '--target-dir', target], check=True)
    return f'{target}/release/rate'


def app(name, host, paths, upstream, turn=0):
    """An app of the table whose first slot, or whose second, gets everything."""
    slots = [{'name': n, 'weight': w, 'upstream': upstream} for n, w in (('blue', 100 - 100 * turn), ('green', 100 * turn))]
    return json.dumps({'name': name, 'generation': 1 + turn, 'routes': [{'host': host, 'path': p} for p in paths], 'slots': slots})


def table(revision, apps):
    return f'{{"revision":{revision},"apps":[{",".join(apps)}]}}'


def tables(count, upstream):
    """Tables of so many apps for ever; from one to the next an app is switched to its other slot."""
    paths = ['/', *(f'/part{n}/api' for n in range(1, ROUTES))]
    apps = [app(f'app{n}', f'app{n}.bench', paths, upstream) for n in range(count)]
    revision = 0
    while True:
        revision += 1
        yield table(revision, apps)
        turn, n = divmod(revision - 1, count)
        apps[n] = app(f'app{n}', f'app{n}.bench', paths, upstream, (turn + 1) % 2)


def unused_ports():
    """Below those that the kernel gives to clients."""
    for port in range(18200, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
        yield port


def answers(port):
    """Waits until somebody listens on a port."""
    for _ in range(200):
        try:
            return socket.create_connection(('127.0.0.1', port)).close()
        except OSError:
            time.sleep(0.05)
    sys.exit(f'nothing listens on 127.0.0.1:{port}')


def family(pid):
    """A process and all below it."""
    children = [c for t in os.listdir(f'/proc/{pid}/task') for c in open(f'/proc/{pid}/task/{t}/children').read().split()]
    return [pid] + [p for c in children for p in family(int(c))]


def cpu_of_threads(pid):
    """Seconds of CPU per thread of a process and of all below it."""
    tasks = [f'/proc/{p}/task/{t}' for p in family(pid) for t in os.listdir(f'/proc/{p}/task')]
    return {t: int(open(f'{t}/schedstat').read().split()[0]) / 1e9 for t in tasks}


def serves(thread):
    """True of the threads of a router that answer requests."""
    return open(f'{thread}/comm').read().startswith('router-')


def cpu(pid):
    return sum(cpu_of_threads(pid).values())


def pss(pid):
    """Bytes of memory of a process and of all below it, shared pages by their share."""
    lines = [line for p in family(pid) for line in open(f'/proc/{p}/smaps_rollup')]
    return sum(int(line.split()[1]) for line in lines if line.startswith('Pss:')) * 1024


def descriptors(pid):
    return sum(len(os.listdir(f'/proc/{p}/fd')) for p in family(pid))


def established(port):
    """The inodes of the sockets that were accepted on a port (proc_net_tcp.txt in the kernel's documentation)."""
    rows = [line.split() for line in open('/proc/net/tcp')][1:]
    return {row[9] for row in rows if row[1].endswith(f':{port:04X}') and row[3] == '01'}


def connections_of_threads(pid, port):
    """How many of the connections on a port each event loop of a process watches: a thread has one (epoll in proc_pid_fdinfo(5))."""
    clients, own = established(port), {}
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            own[fd] = os.readlink(f'/proc/{pid}/fd/{fd}')
        except FileNotFoundError:
            pass
    loops = set()
    for fd in (fd for fd, what in own.items() if what == 'anon_inode:[eventpoll]'):
        watched = re.findall(r'^tfd:\s+(\d+)', open(f'/proc/{pid}/fdinfo/{fd}').read(), re.MULTILINE)
        # Two descriptors may be of one loop; then they watch the same.
        loops.add(frozenset(w for w in watched if own.get(w, '')[8:-1] in clients))
    return [len(loop) for loop in loops if loop]


def slab():
    """Bytes that the kernel has taken for its own objects: sockets, files, pipes, event loops."""
    return next(int(line.split()[1]) for line in open('/proc/meminfo') if line.startswith('Slab:')) * 1024


def note(text):
    print(text, file=sys.stderr, flush=True)


def name(what):
    return NAMES.get(what, what)


def markdown(head, rows):
    print(f'| {" | ".join(head)} |', '|---' * len(head) + '|', *(f'| {" | ".join(row)} |' for row in rows), sep='\n', end='\n\n', flush=True)


class Samples(collections.defaultdict):
    """Figures by what they are of, one per round."""

    def __init__(self):
        super().__init__(list)

    def median(self, *of):
        return statistics.median(self[of])

    def ratio(self, one, other):
        """The median over rounds of one to another: what else the machine did in a round fell on both."""
        return statistics.median(a / b for a, b in zip(self[one], self[other]))

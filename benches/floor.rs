//! What a proxy costs that does nothing: it passes on what it reads and looks at none of it but where an
//! answer ends, for which it believes the first `Content-Length`. One thread, one epoll, two reads and two
//! writes per request. Whatever is measured beside this is what the kernel cannot be blamed for.
//!
//! It takes the router's arguments: `floor --listen ADDRESS:PORT --table FILE`.

use std::error::Error;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use slot::wire::table::Table;

/// One connection, by its descriptor's number.
struct Side {
    socket: OwnedFd,
    /// The other end of the request under way.
    other: RawFd,
    is_upstream: bool,
    /// Bytes of the answer that are still to come.
    left: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)
    };
    let (Some(listen), Some(table)) = (value("--listen"), value("--table")) else {
        // As `cargo bench` runs it.
        println!("a proxy for benches/router: floor --listen ADDRESS:PORT --table FILE");
        return Ok(());
    };
    let table: Table = serde_json::from_slice(&std::fs::read(table)?)?;
    relay(
        &TcpListener::bind(listen)?,
        &table.apps[0].slots[0].upstream,
    )
}

fn relay(listener: &TcpListener, upstream: &str) -> Result<(), Box<dyn Error>> {
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let number = listener.as_raw_fd();
    epoll::add(
        &poll,
        listener,
        EventData::new_u64(number as u64),
        EventFlags::IN,
    )?;
    let (mut sides, mut spare): (Vec<Option<Side>>, Vec<RawFd>) = Default::default();
    let (mut events, mut buffer) = (Vec::<Event>::with_capacity(1024), vec![0; 65536]);
    loop {
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let from = event.data.u64() as RawFd;
            if from == number {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let socket = net::accept_with(listener, flags)?;
                net::sockopt::set_tcp_nodelay(&socket, true)?;
                watch(&poll, &mut sides, socket, false)?;
                continue;
            }
            let Some(side) = &mut sides[from as usize] else {
                continue;
            };
            let count = match net::recv(&side.socket, &mut buffer, RecvFlags::empty()) {
                Err(Errno::AGAIN) => continue,
                Ok((0, _)) | Err(_) => {
                    sides[from as usize] = None;
                    continue;
                }
                Ok((count, _)) => count,
            };
            let bytes = &buffer[..count];
            let to = if side.is_upstream {
                side.left = match side.left {
                    0 => length(bytes).saturating_sub(count),
                    left => left.saturating_sub(count),
                };
                if side.left == 0 {
                    spare.push(from);
                }
                side.other
            } else {
                let to = match spare.pop() {
                    Some(to) => to,
                    None => watch(&poll, &mut sides, connect(upstream)?, true)?,
                };
                sides[to as usize].iter_mut().for_each(|s| s.other = from);
                to
            };
            if let Some(side) = &sides[to as usize] {
                _ = net::send(&side.socket, bytes, SendFlags::NOSIGNAL);
            }
        }
    }
}

fn watch(
    poll: &OwnedFd,
    sides: &mut Vec<Option<Side>>,
    socket: OwnedFd,
    is_upstream: bool,
) -> rustix::io::Result<RawFd> {
    let number = socket.as_raw_fd();
    let interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(poll, &socket, EventData::new_u64(number as u64), interest)?;
    let place = number as usize;
    if sides.len() <= place {
        sides.resize_with(place + 1, || None);
    }
    sides[place] = Some(Side {
        socket,
        other: number,
        is_upstream,
        left: 0,
    });
    Ok(number)
}

fn connect(upstream: &str) -> Result<OwnedFd, Box<dyn Error>> {
    if let Some(path) = upstream.strip_prefix("unix:") {
        let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        return Ok(socket);
    }
    let socket = std::net::TcpStream::connect(upstream)?;
    socket.set_nodelay(true)?;
    Ok(socket.into())
}

/// How long an answer is, head and body.
fn length(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let head = text.find("\r\n\r\n").map_or(bytes.len(), |end| end + 4);
    let body = text.split("Content-Length: ").nth(1);
    let digits = body.and_then(|rest| rest.split("\r\n").next());
    head + digits.and_then(|d| d.parse::<usize>().ok()).unwrap_or(0)
}

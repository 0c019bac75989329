//! Another reader of messages, as plain as can be and with nothing of slot's: what it finds in what was forwarded is what an upstream
//! or a client finds there.

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub host: String,
    pub body: Vec<u8>,
}

/// The request at the start of `bytes` and its length; `None` while it is not whole.
///
/// # Errors
/// It is none, or its end could be seen in two places.
pub fn request(bytes: &[u8]) -> Result<Option<(Asked, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut head = httparse::Request::new(&mut headers);
    let used = match head.parse(bytes).map_err(|e| e.to_string())? {
        httparse::Status::Complete(used) => used,
        httparse::Status::Partial => return Ok(None),
    };
    let all = |name: &str| values(head.headers, name);
    let (lengths, codings, hosts) = (all("content-length"), all("transfer-encoding"), all("host"));
    let (body, length) = match (&lengths[..], &codings[..]) {
        ([], []) => (Vec::new(), 0),
        ([length], []) => {
            let length: usize = length
                .parse()
                .map_err(|_| format!("a length of {length:?}"))?;
            match bytes.get(used..).and_then(|rest| rest.get(..length)) {
                Some(body) => (body.to_vec(), length),
                None => return Ok(None),
            }
        }
        ([], [coding]) if coding == "chunked" => match chunks(&bytes[used..]) {
            Some(read) => read,
            None => return Ok(None),
        },
        other => return Err(format!("framed as {other:?}")),
    };
    let [host] = &hosts[..] else {
        return Err(format!("hosts {hosts:?}"));
    };
    let asked = Asked {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        host: host.clone(),
        body,
    };
    Ok(Some((asked, used + length)))
}

fn values(fields: &[httparse::Header<'_>], name: &str) -> Vec<String> {
    let named = fields.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
    named
        .map(|h| String::from_utf8_lossy(h.value).into_owned())
        .collect()
}

/// An answer, and what came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The statuses of interim answers.
    pub interims: Vec<u16>,
    /// The status of the final one.
    pub status: u16,
    /// As much of its body as there is.
    pub body: Vec<u8>,
    /// How the end of the body is seen.
    pub end: End,
    /// No other answer follows on this connection.
    pub closes: bool,
    /// It is the router's own.
    pub is_ours: bool,
    /// Where its head ends.
    pub head: usize,
    /// Where it ends.
    pub used: usize,
}

/// How the end of a body is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was seen.
    Whole,
    /// It is still to come, or what comes is no body.
    Part,
    /// It is the end of the connection.
    Close,
}

/// The answer at the start of `bytes`, to a HEAD or not, to an HTTP/1.0 client or not; `Err` has what interim answers there are while
/// its head is not whole.
///
/// # Errors
/// It is none, or its end could be seen in two places.
pub fn answer(
    bytes: &[u8],
    to_head: bool,
    to_old: bool,
) -> Result<Result<Answered, Vec<u16>>, String> {
    let (mut interims, mut from) = (Vec::new(), 0);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Response::new(&mut headers);
        let used = match head.parse(&bytes[from..]).map_err(|e| e.to_string())? {
            httparse::Status::Complete(used) => from + used,
            httparse::Status::Partial => return Ok(Err(interims)),
        };
        let all = |name: &str| values(head.headers, name);
        let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
        let status = head.code.unwrap_or_default();
        if matches!(status, 100..=199 | 204) && !(lengths.is_empty() && codings.is_empty()) {
            return Err(format!("a {status} with {lengths:?} {codings:?}"));
        }
        if matches!(status, 100 | 102..=199) {
            interims.push(status);
            from = used;
            continue;
        }
        let (rest, mut body) = (&bytes[used..], Vec::new());
        let (end, length) = match (&lengths[..], &codings[..]) {
            ([], []) | ([_], []) | ([], [_]) if to_head || matches!(status, 101 | 204 | 304) => {
                (End::Whole, 0)
            }
            ([], []) => {
                body.extend_from_slice(rest);
                (End::Close, rest.len())
            }
            ([length], []) => {
                let length: usize = length
                    .parse()
                    .map_err(|_| format!("a length of {length:?}"))?;
                body.extend_from_slice(&rest[..length.min(rest.len())]);
                match body.len() == length {
                    true => (End::Whole, length),
                    false => (End::Part, rest.len()),
                }
            }
            ([], [coding]) if coding == "chunked" => match decode(rest, &mut body) {
                Some(length) => (End::Whole, length),
                None => (End::Part, rest.len()),
            },
            other => return Err(format!("framed as {other:?}")),
        };
        let says = |wanted: &str| {
            let lists = all("connection");
            let mut members = lists.iter().flat_map(|list| list.split(','));
            members.any(|member| member.trim().eq_ignore_ascii_case(wanted))
        };
        let is_json = all("content-type") == ["application/json"];
        return Ok(Ok(Answered {
            status,
            end,
            closes: end == End::Close || says("close") || (to_old && !says("keep-alive")),
            is_ours: is_json && (to_head || body.starts_with(b"{\"error\":\"")),
            interims,
            body,
            head: used,
            used: used + length,
        }));
    }
}

/// The data of a whole chunked body at the start of `bytes`, and how long the body is.
pub fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut data = Vec::new();
    let length = decode(bytes, &mut data)?;
    Some((data, length))
}

/// Appends the data of a chunked body to `data`, as far as it goes; returns how long the body is if it is whole.
fn decode(bytes: &[u8], data: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = line(bytes, at)?;
        let digits = std::str::from_utf8(&bytes[at..line]).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = line + 2;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        data.extend_from_slice(&bytes[at..end.min(bytes.len())]);
        if bytes.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let end = line(bytes, at)?;
        let is_last = end == at;
        at = end + 2;
        if is_last {
            return Some(at);
        }
    }
}

/// Where the line ends that starts at `at`.
fn line(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    rest.windows(2)
        .position(|pair| pair == b"\r\n")
        .map(|end| at + end)
}

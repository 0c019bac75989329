//! Another reader of messages, as plain as can be and with nothing of slot's: what it finds in what was forwarded is what an upstream
//! finds there.

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
    let all = |name: &str| -> Vec<String> {
        let named = head
            .headers
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case(name));
        named
            .map(|h| String::from_utf8_lossy(h.value).into_owned())
            .collect()
    };
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

/// The data of a whole chunked body at the start of `bytes`, and how long the body is.
pub fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let line = line(bytes, at)?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..line]).ok()?, 16).ok()?;
        at = line + 2;
        if size == 0 {
            break;
        }
        let end = at.checked_add(size)?;
        data.extend_from_slice(bytes.get(at..end)?);
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    loop {
        let end = line(bytes, at)?;
        let is_last = end == at;
        at = end + 2;
        if is_last {
            return Some((data, at));
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

//! Heads: the same verdict for every cut, and what is forwarded is accepted again, by another parser too.

use slot::router::h1::fields::{Fields, Known};
use slot::router::h1::forward::{self, Hop, Toward};
use slot::router::h1::framing::Framing;
use slot::router::h1::request::Request;
use slot::router::h1::response::Response;
use slot::router::h1::scan::{Scan, Scanned};
use slot::router::h1::{Limits, Span};

/// Small, so that they are met.
const LIMITS: Limits = Limits {
    head_bytes: 1024,
    fields: 16,
    target_bytes: 200,
};

/// The first byte says whose head it is, and where it is cut.
pub fn run(data: &[u8]) {
    let (choice, bytes) = super::split(data);
    let is_request = choice % 2 == 0;
    let whole = scan(bytes, &[], is_request);
    assert_eq!(
        scan(bytes, &[choice / 2 % (bytes.len() + 1)], is_request),
        whole,
        "cut"
    );
    let everywhere: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(scan(bytes, &everywhere, is_request), whole, "byte by byte");
    if let Ok(Some(head)) = whole {
        match is_request {
            true => request(bytes, head, choice & 2 != 0),
            false => response(bytes, head, choice & 2 != 0),
        }
    }
}

fn scan(bytes: &[u8], cuts: &[usize], is_request: bool) -> Result<Option<Span>, u16> {
    let mut scan = Scan::default();
    for end in cuts.iter().copied().chain([bytes.len()]) {
        match scan.advance(&bytes[..end], &LIMITS, is_request) {
            Ok(Scanned::Partial) => {}
            Ok(Scanned::Whole(head)) => return Ok(Some(head)),
            Err(refusal) => return Err(refusal.status),
        }
    }
    Ok(None)
}

fn request(bytes: &[u8], head: Span, trusted: bool) {
    let mut fields = Fields::default();
    let Ok(first) = Request::parse(bytes, head, &mut fields, &LIMITS) else {
        return;
    };
    let hop = Hop {
        via: "slot-1",
        client: b"192.0.2.7",
        scheme: "http",
        request_id: b"id",
        trusted,
    };
    let mut out = Vec::new();
    let Ok(written) = forward::request(&mut out, bytes, &fields, &first, &hop) else {
        return;
    };
    let (again, fields) = reread(&out, true, |span, fields| {
        Request::parse(&out, span, fields, &Limits::default())
    });
    assert_eq!(again.method.of(&out), first.method.of(bytes));
    assert_eq!(again.framing, first.framing);
    assert_eq!(again.version, 1);
    assert_eq!(again.upgrades, first.upgrades);
    assert_eq!(again.target.origin.of(&out), written.target.of(&out));
    assert_eq!(again.target.path.of(&out), written.path.of(&out));
    assert_eq!(
        again.authority.map(|a| a.of(&out)),
        Some(written.authority.of(&out))
    );
    assert_eq!(fields.values(&out, Known::Host).count(), 1);
    assert_eq!(fields.values(&out, Known::XForwardedFor).count(), 1);
    assert_eq!(fields.values(&out, Known::XForwardedProto).count(), 1);
    assert_eq!(fields.values(&out, Known::XRequestId).count(), 1);
    assert_eq!(fields.values(&out, Known::Alias).count(), 0);
    one_framing(&fields, &out, first.framing);
    let mut theirs = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut theirs);
    assert_eq!(other.parse(&out), Ok(httparse::Status::Complete(out.len())));
    assert_eq!(
        other.method.map(str::as_bytes),
        Some(first.method.of(bytes))
    );
    assert_eq!(other.path.map(str::as_bytes), Some(written.target.of(&out)));
    assert_eq!(other.headers.len(), fields.iter().count());
}

fn response(bytes: &[u8], head: Span, to_head: bool) {
    let mut fields = Fields::default();
    let Ok(first) = Response::parse(bytes, head, to_head, &mut fields, &LIMITS) else {
        return;
    };
    let mut out = Vec::new();
    let toward = Toward {
        version: 1,
        close: first.framing == Framing::UntilClose,
    };
    let added = forward::Added::default();
    forward::response(&mut out, bytes, &fields, &first, toward, &added);
    let (again, fields) = reread(&out, false, |span, fields| {
        Response::parse(&out, span, to_head, fields, &Limits::default())
    });
    assert_eq!((again.status, again.framing), (first.status, first.framing));
    assert_eq!(again.reason.of(&out), first.reason.of(bytes));
    one_framing(&fields, &out, first.framing);
    let mut theirs = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Response::new(&mut theirs);
    assert_eq!(other.parse(&out), Ok(httparse::Status::Complete(out.len())));
    assert_eq!(other.code, Some(first.status));
}

/// Parses what was written: it is whole and accepted.
fn reread<T>(
    out: &[u8],
    is_request: bool,
    parse: impl FnOnce(Span, &mut Fields) -> Result<T, slot::router::h1::Refusal>,
) -> (T, Fields) {
    let mut fields = Fields::default();
    let span = match Scan::default().advance(out, &Limits::default(), is_request) {
        Ok(Scanned::Whole(span)) => span,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(out)),
    };
    assert_eq!(span, Span::new(0, out.len()));
    match parse(span, &mut fields) {
        Ok(parsed) => (parsed, fields),
        Err(refusal) => panic!("{refusal} in {:?}", String::from_utf8_lossy(out)),
    }
}

/// A message says its length in one way at most.
fn one_framing(fields: &Fields, out: &[u8], framing: Framing) {
    let [lengths, codings] =
        [Known::ContentLength, Known::TransferEncoding].map(|k| fields.values(out, k).count());
    assert!(lengths + codings <= 1, "{:?}", String::from_utf8_lossy(out));
    if framing == Framing::Chunked {
        assert_eq!(codings, 1);
    }
}

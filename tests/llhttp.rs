//! The fixtures of llhttp (Node's parser), read by this one: `tests/llhttp/{request,response}`, unchanged, under their own licence.
//!
//! Where the two differ, `tests/llhttp/differences.txt` says what each makes of the bytes and why ours is meant. A case is a difference
//! if one refuses what the other accepts, or if they see different messages. Requests without a Host, which most of the fixtures
//! are, get one, so that the rest of them is looked at too.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use slot::router::h1::body::{Body, Pieces};
use slot::router::h1::fields::Fields;
use slot::router::h1::request::Request;
use slot::router::h1::response::Response;
use slot::router::h1::scan::{Scan, Scanned};
use slot::router::h1::{Limits, Refusal};

const DIFFERENCES: &str = "tests/llhttp/differences.txt";

/// The fixtures that are left out, by what llhttp is told there, and why.
const SKIPPED: &[(&str, &str)] = &[(
    "[skipBody]",
    "that a message has no body whatever its head says; a parser of ours is told that of an answer to HEAD alone",
)];

/// A fixture.
struct Case {
    /// `request/sample.md: Simple request`.
    name: String,
    is_request: bool,
    input: Vec<u8>,
    log: String,
}

/// What a parser makes of some bytes.
#[derive(Debug, PartialEq, Eq, Default)]
struct Seen {
    /// Whole messages: method and target or status, and how many bytes of data their body has.
    messages: Vec<(String, usize)>,
    refused: Option<String>,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (what, body)) in self.messages.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{} +{body}", what.escape_default())?;
        }
        match &self.refused {
            Some(why) if self.messages.is_empty() => write!(f, "refused: {why}"),
            Some(why) => write!(f, ", then refused: {why}"),
            None if self.messages.is_empty() => f.write_str("nothing whole"),
            None => Ok(()),
        }
    }
}

/// The cases of one file, taken apart as llhttp's own `md-test.ts` does.
fn cases(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap();
    let folder = path.parent().and_then(Path::file_name).unwrap();
    let file = format!(
        "{}/{}",
        folder.display(),
        path.file_name().unwrap().display()
    );
    let (mut title, mut meta, mut input) = (String::new(), None::<String>, None);
    let (mut cases, mut block) = (Vec::new(), None::<(String, String)>);
    for line in text.lines() {
        match &mut block {
            Some((kind, content)) if line == "```" => {
                match kind.as_str() {
                    "http" => input = Some(unescape(content)),
                    "log" => {
                        let meta: serde_json::Value =
                            serde_json::from_str(&meta.take().unwrap()).unwrap();
                        let kind = meta["type"].as_str().unwrap();
                        // What llhttp is told is a part of what it is asked.
                        let told = match kind.split_once('-') {
                            Some((_, told)) if told != "finish" => format!(" [{told}]"),
                            _ if meta["skipBody"] == true => " [skipBody]".to_owned(),
                            _ => String::new(),
                        };
                        if !SKIPPED.iter().any(|(skipped, _)| told.contains(skipped)) {
                            let mut same = 1;
                            let mut name = format!("{file}: {title}{told}");
                            while cases.iter().any(|c: &Case| c.name == name) {
                                same += 1;
                                name = format!("{file}: {title}{told} ({same})");
                            }
                            cases.push(Case {
                                name,
                                is_request: kind.starts_with("request"),
                                input: input.take().unwrap(),
                                log: std::mem::take(content),
                            });
                        }
                    }
                    _ => {}
                }
                block = None;
            }
            Some((_, content)) => {
                content.push_str(line);
                content.push('\n');
            }
            None => {
                if let Some(kind) = line.strip_prefix("```") {
                    block = Some((kind.to_owned(), String::new()));
                } else if let Some(name) = line.strip_prefix('#') {
                    title = name.trim_start_matches('#').trim().to_owned();
                } else if let Some(json) = line.strip_prefix("<!-- meta=") {
                    meta = Some(json.trim_end_matches("-->").trim().to_owned());
                }
            }
        }
    }
    cases
}

/// The bytes that a block stands for.
fn unescape(block: &str) -> Vec<u8> {
    let text = block.strip_suffix('\n').unwrap_or(block);
    let text = text.replace("\\\n", "").replace('\n', "\r\n");
    let mut out = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (radix, from) = match rest.as_bytes().get(at + 1) {
            Some(b'x') => (16, at + 2),
            Some(b'0'..=b'7') => (8, at + 1),
            Some(letter) => {
                match letter {
                    b'r' => out.push(b'\r'),
                    b'n' => out.push(b'\n'),
                    b't' => out.push(b'\t'),
                    b'f' => out.push(b'\x0c'),
                    other => out.extend_from_slice(&[b'\\', *other]),
                }
                rest = &rest[at + 2..];
                continue;
            }
            // Before the line end that was taken off.
            None => return out,
        };
        let digits = rest[from..].chars().take_while(|c| c.is_digit(radix));
        let end = from + digits.count();
        push_char(
            &mut out,
            u32::from_str_radix(&rest[from..end], radix).unwrap(),
        );
        rest = &rest[end..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// As Node writes a character of a string: in UTF-8.
fn push_char(out: &mut Vec<u8>, code: u32) {
    let mut bytes = [0; 4];
    let text = char::from_u32(code).unwrap().encode_utf8(&mut bytes);
    out.extend_from_slice(text.as_bytes());
}

/// What llhttp says in its log.
fn theirs(log: &str, is_request: bool) -> Seen {
    let mut seen = Seen::default();
    let (mut start, mut target, mut body) = (String::new(), String::new(), 0);
    for line in log.lines() {
        let span = |name: &str| {
            let (_, text) = line.split_once(&format!("span[{name}]=\""))?;
            text.strip_suffix('"')
        };
        if let Some(method) = span("method") {
            start.push_str(method);
        } else if let Some(url) = span("url") {
            target.push_str(url);
        } else if let Some((_, status)) =
            line.split_once("headers complete ").filter(|_| !is_request)
        {
            let status = status.split("status=").nth(1).unwrap();
            start = status.split(' ').next().unwrap().to_owned();
        } else if line.contains("span[body]=") {
            let length = line.split("len=").nth(1).unwrap();
            body += length.split(' ').next().unwrap().parse::<usize>().unwrap();
        } else if line.contains("message complete") {
            let space = if is_request { " " } else { "" };
            seen.messages
                .push((format!("{start}{space}{target}"), body));
            (start, target, body) = (String::new(), String::new(), 0);
        } else if let Some((_, error)) = line.split_once("error code=") {
            let (code, reason) = error.split_once(' ').unwrap_or((error, ""));
            // 21 is a pause that was asked for; at 22 another protocol begins.
            if !matches!(code, "21" | "22") {
                let reason = reason.trim_start_matches("reason=").trim_matches('"');
                seen.refused = Some(reason.to_owned());
            }
        }
    }
    seen
}

const END: &[u8] = b"\r\n\r\n";

/// What this parser makes of the same bytes.
fn ours(input: &[u8], is_request: bool) -> Seen {
    let (mut seen, mut fields, limits) = (Seen::default(), Fields::default(), Limits::default());
    let mut used = 0;
    while used < input.len() {
        let bytes = &input[used..];
        let head = match Scan::default().advance(bytes, &limits, is_request) {
            Ok(Scanned::Whole(head)) => head,
            // Some end before their head does: what it would have come to is asked once.
            Ok(Scanned::Partial) if !input.ends_with(END) => {
                return ours(&[input, END].concat(), is_request);
            }
            Ok(Scanned::Partial) => return seen,
            Err(refusal) => return refused(seen, refusal),
        };
        let parsed = match is_request {
            true => Request::parse(bytes, head, &mut fields, &limits).map(|r| {
                let line = String::from_utf8_lossy(head.of(bytes));
                let start = line.split(" HTTP/").next().unwrap_or_default().to_owned();
                (start, r.framing, r.keeps_alive(), r.upgrades)
            }),
            false => Response::parse(bytes, head, false, &mut fields, &limits).map(|r| {
                (
                    r.status.to_string(),
                    r.framing,
                    r.keeps_alive() || r.is_interim(),
                    r.status == 101,
                )
            }),
        };
        let (start, framing, keeps_alive, switches) = match parsed {
            Ok(parsed) => parsed,
            Err(refusal) => return refused(seen, refusal),
        };
        used += head.end as usize;
        let (mut body, mut data) = (Body::new(framing, true), 0);
        while !body.is_done() {
            let mut pieces = Pieces::default();
            match body.advance(&input[used..], 0, &mut pieces) {
                Ok(0) => break,
                Ok(step) => used += step,
                Err(error) => return refused(seen, error.into()),
            }
            data += pieces.as_slice().iter().map(|p| p.len()).sum::<usize>();
        }
        if !body.is_done() {
            return seen;
        }
        seen.messages.push((start, data));
        if !keeps_alive && used < input.len() {
            seen.refused = Some("thrown away: it is behind a message that closes".to_owned());
        }
        if !keeps_alive || switches {
            return seen;
        }
    }
    seen
}

fn refused(mut seen: Seen, refusal: Refusal) -> Seen {
    seen.refused = Some(refusal.reason.to_owned());
    seen
}

/// The requests of `input` with a Host each, if none has one.
fn with_host(input: &[u8]) -> Vec<u8> {
    const LINE_END: &[u8] = b"HTTP/1.1\r\n";
    if String::from_utf8_lossy(input)
        .to_ascii_lowercase()
        .contains("\nhost")
    {
        return input.to_vec();
    }
    let mut out = Vec::new();
    for (at, byte) in input.iter().enumerate() {
        out.push(*byte);
        if input[..=at].ends_with(LINE_END) {
            out.extend_from_slice(b"Host: a\r\n");
        }
    }
    out
}

fn all() -> Vec<Case> {
    let mut files: Vec<_> = ["request", "response"]
        .iter()
        .flat_map(|kind| fs::read_dir(format!("tests/llhttp/{kind}")).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().flat_map(|file| cases(file)).collect()
}

/// Of each difference: what is written down, its reason included.
fn written() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(DIFFERENCES).unwrap_or_default();
    let entries = text
        .split("\n\n")
        .filter(|e| !e.is_empty() && !e.starts_with('#'));
    let entries = entries.map(|entry| {
        let (name, rest) = entry.split_once('\n').unwrap();
        let (what, why) = rest.split_once("\n  why: ").unwrap();
        (
            name.to_owned(),
            (what.to_owned(), why.trim_end().to_owned()),
        )
    });
    entries.collect()
}

#[test]
fn where_we_differ_from_llhttp_is_written_down_with_its_reason() {
    let cases = all();
    assert!(
        cases.len() > 180,
        "only {} fixtures were found",
        cases.len()
    );
    let known = written();
    let mut found = String::from(
        "# Where slot's parser and llhttp make different messages of llhttp's fixtures. `+5`: with 5 bytes of data.\n",
    );
    let mut unexplained = Vec::new();
    let mut differ = 0;
    for case in &cases {
        let theirs = theirs(&case.log, case.is_request);
        let ours = match case.is_request {
            true => ours(&with_host(&case.input), true),
            false => ours(&case.input, false),
        };
        if theirs.messages == ours.messages && theirs.refused.is_some() == ours.refused.is_some() {
            continue;
        }
        differ += 1;
        let what = format!("  llhttp: {theirs}\n  slot: {ours}");
        let why = match known.get(&case.name) {
            Some((known, why)) if *known == what => why.as_str(),
            _ => "",
        };
        if why.is_empty() {
            unexplained.push(format!("{}\n{what}", case.name));
        }
        write!(found, "\n{}\n{what}\n  why: {why}\n", case.name).unwrap();
    }
    if std::env::var_os("SLOT_BLESS").is_some() {
        fs::write(DIFFERENCES, found).unwrap();
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n\n"));
    assert_eq!(
        known.len(),
        differ,
        "a difference is written down that is none"
    );
}

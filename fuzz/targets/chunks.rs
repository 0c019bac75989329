//! Chunked bodies: the same verdict and data for every cut, and a plain decoder finds the same data in what is passed on.

use slot::router::h1::body::{Body, Pieces};
use slot::router::h1::framing::Framing;

use super::reader;

/// What became of a body: what was passed on, whether it is whole, and how many bytes it was.
type Passed = Result<(Vec<u8>, bool, usize), ()>;

/// The first byte says where the body is cut.
pub fn run(data: &[u8]) {
    let (choice, bytes) = super::split(data);
    let everywhere: Vec<usize> = (0..bytes.len()).collect();
    let mut seen = Vec::new();
    for bare in [false, true] {
        let whole = pass(bytes, &[], bare);
        for cuts in [&[choice % (bytes.len() + 1)][..], &everywhere] {
            assert_eq!(pass(bytes, cuts, bare), whole, "cut at {cuts:?}");
        }
        seen.push(whole);
    }
    match (&seen[0], &seen[1]) {
        (Ok((framed, true, used)), Ok((data, true, same))) => {
            assert_eq!(used, same);
            let (decoded, length) = reader::chunks(framed).expect("what is passed on can be read");
            assert_eq!((&decoded, length), (data, framed.len()));
        }
        (Ok((_, false, _)), Ok((_, false, _))) | (Err(()), Err(())) => {}
        other => panic!("it matters whether framing is passed on: {other:?}"),
    }
}

fn pass(bytes: &[u8], cuts: &[usize], bare: bool) -> Passed {
    let (mut body, mut out, mut used) = (Body::new(Framing::Chunked, bare), Vec::new(), 0);
    for end in cuts.iter().copied().chain([bytes.len()]) {
        while !body.is_done() && used < end {
            let mut pieces = Pieces::default();
            let step = body
                .advance(&bytes[used..end], used, &mut pieces)
                .map_err(|_| ())?;
            for piece in pieces.as_slice() {
                out.extend_from_slice(piece.of(bytes));
            }
            used += step;
            if step == 0 {
                break;
            }
        }
    }
    Ok((out, body.is_done(), used))
}

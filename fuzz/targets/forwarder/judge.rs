//! Whether what came out is what had to come out, on both sides.
//!
//! Requests: each that was accepted is seen by the upstream whole, once and in order, and again only as strictness item 14 allows.
//!
//! Answers: one for each of them, in order, as its own request was answered; one that is not whole ends in a reset or was the
//! router's own error; nothing is there that belongs to no request.

use std::fmt::Debug;

use super::super::reader::{self, Answered, End};
use super::oracle::{Accepted, Kind, Outcome, Rest};
use super::plan::{Plan, Then};
use super::play::{Played, Sight};

type Verdict<T> = Result<T, String>;

/// Judges a run.
///
/// # Errors
/// What is wrong.
pub fn judge(plan: &Plan<'_>, whole: &[Accepted], rest: &Rest, played: &Played<'_>) -> Verdict<()> {
    if let Some(fault) = &played.fault {
        return Err(fault.clone());
    }
    let mut judge = Judge {
        plan,
        played,
        sights: &played.sights,
        answer: &played.answer,
        is_cut: false,
    };
    for (number, request) in whole.iter().enumerate() {
        if judge
            .request(request, true)
            .map_err(|why| format!("request {number}: {why}"))?
        {
            return judge.end();
        }
    }
    match rest {
        Rest::Nothing => {}
        Rest::Refused(to_head) => judge.refusal(*to_head)?,
        Rest::Begun(request) => {
            let closed = judge
                .request(request, false)
                .map_err(|why| format!("the last request: {why}"))?;
            check(closed, "the connection goes on behind half a request")?;
        }
    }
    judge.end()
}

fn check(holds: bool, otherwise: impl Into<String>) -> Verdict<()> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn same<T: Debug + PartialEq>(got: T, wanted: T, what: &str) -> Verdict<()> {
    check(got == wanted, format!("{what}: {got:?}, not {wanted:?}"))
}

/// What is still to be judged.
struct Judge<'a> {
    plan: &'a Plan<'a>,
    played: &'a Played<'a>,
    sights: &'a [Sight<'a>],
    answer: &'a [u8],
    /// It was right that they end by a reset.
    is_cut: bool,
}

impl<'a> Judge<'a> {
    fn end(&self) -> Verdict<()> {
        let seen = self
            .sights
            .first()
            .map(|s| String::from_utf8_lossy(&s.bytes));
        same(seen, None, "at the upstream for nobody")?;
        let answer = String::from_utf8_lossy(self.answer);
        same(&*answer, "", "at the client for nothing")?;
        check(
            self.is_cut || !self.played.is_reset,
            "a reset behind whole answers",
        )
    }

    /// The next request; true if its answer was the last one.
    fn request(&mut self, request: &Accepted, is_whole: bool) -> Verdict<bool> {
        let got = reader::answer(self.answer, request.is_to_head(), request.is_old)?;
        let mut sight = match self.sights {
            [first, rest @ ..] => {
                is_of(first, request, is_whole)?;
                self.sights = rest;
                Some(first)
            }
            [] => None,
        };
        if let (Some(first), [second, rest @ ..]) = (sight, self.sights)
            && is_whole
            && is_repeat(first, second, request)
        {
            // It may be the next request, one like this, which got no second try because it was not whole at hand.
            let failed = matches!(second.outcome.kind, Kind::Nothing | Kind::Part(..));
            if failed || !got.as_ref().is_ok_and(|answer| answer.is_ours) {
                (sight, self.sights) = (Some(second), rest);
            }
        }
        let Some(sight) = sight else {
            // Only of half a request need nobody know.
            return match got {
                Ok(answer) if !is_whole => self.ours(&answer, &[400]),
                Err(_) if !is_whole => self.cut(&[], &[]),
                got => Err(format!("nobody was asked: {got:?}")),
            };
        };
        let knows_all = sight.asked.is_some() || !is_whole || self.plan.is_eager;
        let is_unheard = sight.said.is_some_and(|said| said.bytes.is_empty());
        check(
            knows_all || is_unheard,
            "only half of it reached the upstream",
        )?;
        match got {
            Ok(answer) => self.answered(request, is_whole, sight, &answer),
            Err(interims) => {
                check(
                    self.may_be_cut(request, is_whole, sight),
                    format!("no answer, {interims:?}"),
                )?;
                is_start(&interims, &sight.outcome.interims)?;
                self.cut(&[], &[])
            }
        }
    }

    /// Whether a reset may end the answer to a request, or come instead of it.
    fn may_be_cut(&self, request: &Accepted, is_whole: bool, sight: &Sight<'_>) -> bool {
        let outcome = &sight.outcome;
        let is_stream = outcome.is_stream || matches!(outcome.kind, Kind::AtEnd(_));
        let is_lost = sight.said.is_some_and(|said| said.then == Then::Reset)
            && (self.plan.is_eager
                || matches!(outcome.kind, Kind::AtEnd(_) | Kind::Tunnel)
                || (request.wants_stream && is_stream));
        // Nobody waits for a stream who has said that he goes.
        let has_left = self.plan.half_closes && is_stream;
        !is_whole || is_lost || has_left || matches!(outcome.kind, Kind::Part(..))
    }

    /// The client's bytes end here by reset, with the beginning of `wanted`.
    fn cut(&mut self, got: &[u8], wanted: &[u8]) -> Verdict<bool> {
        check(self.played.is_reset, "a cut answer ends cleanly")?;
        is_start(got, wanted)?;
        (self.answer, self.is_cut) = (&[], true);
        Ok(true)
    }

    /// An answer of the router's own.
    fn ours(&mut self, answer: &Answered, statuses: &[u16]) -> Verdict<bool> {
        check(answer.is_ours, "an answer that nobody gave")?;
        check(
            statuses.contains(&answer.status),
            format!("{} of our own", answer.status),
        )?;
        same(answer.end, End::Whole, "our own answer")?;
        self.take(answer)
    }

    /// Goes on behind a whole answer.
    fn take(&mut self, answer: &Answered) -> Verdict<bool> {
        self.answer = &self.answer[answer.used..];
        Ok(answer.closes)
    }

    /// What is no request gets one answer and no other.
    fn refusal(&mut self, to_head: bool) -> Verdict<()> {
        let answer = reader::answer(self.answer, to_head, false)?;
        let answer = answer.map_err(|interims| format!("no refusal, {interims:?}"))?;
        same(&answer.interims[..], &[], "before a refusal")?;
        let closes = self.ours(&answer, &[400, 404, 413, 414, 417, 431, 501, 505])?;
        check(closes, "the connection goes on behind what is no request")
    }

    /// An answer of which even the framing passes unread, and what is behind it too.
    fn unread(&mut self, got: &Answered, passed: &[u8], may_be_cut: bool) -> Verdict<bool> {
        let rest = &self.answer[got.head..];
        check(got.closes, "the connection goes on behind a stream")?;
        if self.played.is_reset {
            check(may_be_cut, "a stream was cut")?;
            return self.cut(rest, passed);
        }
        same(rest, passed, "the stream")?;
        self.answer = &[];
        Ok(true)
    }

    /// An answer that is to be the one which the upstream gave, if it is not an error of our own because that is none.
    fn answered(
        &mut self,
        request: &Accepted,
        is_whole: bool,
        sight: &Sight<'_>,
        got: &Answered,
    ) -> Verdict<bool> {
        let Outcome {
            interims,
            status,
            kind,
            ..
        } = &sight.outcome;
        let Some(said) = sight.said else {
            check(!is_whole, "an answer before the upstream gave one")?;
            same(&got.interims[..], &[], "before a refusal")?;
            return self.ours(got, &[400]);
        };
        let interims: &[u16] = if request.is_old { &[] } else { interims };
        let is_failed = match kind {
            Kind::Nothing | Kind::Part(..) => true,
            // It can be lost before it is read only if the upstream did not wait for it to be read.
            _ => said.then == Then::Reset && self.plan.is_eager,
        };
        if got.is_ours && got.status != *status {
            is_start(&got.interims, interims)?;
            let statuses: &[u16] = match (is_whole, is_failed) {
                (true, true) => &[502],
                (true, false) => &[],
                (false, true) => &[400, 502],
                (false, false) => &[400],
            };
            return self.ours(got, statuses);
        }
        same(got.status, *status, "the status")?;
        same(&got.interims[..], interims, "interim answers")?;
        let (rest, passed) = (&self.answer[got.head..], &said.bytes[sight.outcome.head..]);
        let may_be_cut = self.may_be_cut(request, is_whole, sight);
        if sight.outcome.is_stream_in_chunks && request.wants_stream && !request.is_old {
            match self.unread(got, passed, may_be_cut) {
                // It is read if not all of the request was written when it came.
                Err(_) if self.plan.is_eager => {}
                verdict => return verdict,
            }
        }
        match kind {
            Kind::Nothing => Err("an answer where there was none".to_owned()),
            Kind::Tunnel => {
                let upstream = &self.plan.asked[request.end..];
                is_start(&sight.behind, upstream)?;
                if self.played.is_reset {
                    check(may_be_cut, "a tunnel was cut")?;
                    return self.cut(rest, passed);
                }
                check(
                    said.then != Then::Reset,
                    "a tunnel that was cut ends cleanly",
                )?;
                same(rest, passed, "what came through the tunnel")?;
                if said.then == Then::Stay && self.played.sent_all {
                    same(&sight.behind[..], upstream, "what went through the tunnel")?;
                }
                self.answer = &[];
                Ok(true)
            }
            Kind::AtEnd(data) | Kind::Whole(data) | Kind::Part(data) if got.end == End::Close => {
                if self.played.is_reset {
                    check(may_be_cut, "a stream was cut")?;
                    return self.cut(rest, data);
                }
                check(!matches!(kind, Kind::Part(..)), "a cut answer ends cleanly")?;
                let is_reset = matches!(kind, Kind::AtEnd(_)) && said.then == Then::Reset;
                check(!is_reset, "a stream that was reset ends cleanly")?;
                same(rest, &data[..], "the body")?;
                self.take(got)
            }
            Kind::AtEnd(_) => Err("the end of the connection was the end of the body".to_owned()),
            Kind::Whole(data) => match got.end {
                End::Whole => {
                    same(&got.body, data, "the body")?;
                    self.take(got)
                }
                _ => {
                    check(may_be_cut, "it was cut")?;
                    self.cut(&got.body, data)
                }
            },
            Kind::Part(data) => {
                check(got.end == End::Part, "half an answer looks whole")?;
                self.cut(&got.body, data)
            }
        }
    }
}

fn is_start<T: Debug + PartialEq>(got: &[T], of: &[T]) -> Verdict<()> {
    check(
        of.starts_with(got),
        format!("{got:?} is not how {of:?} begins"),
    )
}

/// Whether `second` is the only kind of second try that is allowed (strictness item 14): of a request that can be sent twice, once, when
/// a connection that was used before ended without a byte.
fn is_repeat(first: &Sight<'_>, second: &Sight<'_>, request: &Accepted) -> bool {
    let is_unheard = first.said.is_some_and(|said| said.bytes.is_empty());
    request.is_idempotent()
        && first.before > 0
        && is_unheard
        && second.before == 0
        && is_of(second, request, true).is_ok()
}

/// That what the upstream saw is this request.
fn is_of(sight: &Sight<'_>, request: &Accepted, is_whole: bool) -> Verdict<()> {
    match &sight.asked {
        Some(_) if !is_whole => Err("half a request is whole at the upstream".to_owned()),
        Some(asked) => same(asked, &request.asked, "at the upstream"),
        None => {
            let asked = &request.asked;
            let line = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
            let common = line.len().min(sight.bytes.len());
            same(
                &sight.bytes[..common],
                &line.as_bytes()[..common],
                "begun at the upstream",
            )
        }
    }
}

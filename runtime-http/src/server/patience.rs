//! When a connection has done nothing for too long: a decision, without a clock.

use std::time::Duration;

/// How long clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From accepting a connection to its first request's complete head.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Without taking a byte of an answer.
    pub send: Duration,
}

/// A draining server closes a connection when it has been idle for this long, since its client may be about to use it.
pub const LINGER: Duration = Duration::from_secs(3);
/// A client that sends nothing more, and said so this soon after its request, may still read: it has half-closed the connection.
pub const PROMPT: Duration = Duration::from_millis(250);
/// How soon such a client must be sent something, and again. Only that shows whether it still reads: one that does not answers with a reset.
pub const HALF_CLOSED: Duration = Duration::from_secs(2);
/// How often it is looked whether such a client has gone.
const LOOK: Duration = Duration::from_millis(250);
/// How long a connection that was asked to end may take.
pub const GRACE: Duration = Duration::from_secs(2);

/// What the server wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Order {
    Serve = 0,
    /// It ends after the next answer, or when it has been idle for [`LINGER`].
    Drain = 1,
    /// As soon as it is idle, or sends nothing of what it is asked for.
    Close = 2,
    /// Now if it is idle, else within [`GRACE`].
    End = 3,
}

/// A connection at one moment. Times count from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    pub now: Duration,
    pub order: Order,
    /// When the order was given.
    pub ordered: Duration,
    /// Requests whose answers are not sent.
    pub in_flight: u32,
    /// Those of them whose bodies do not come.
    pub bodies_waiting: u32,
    /// Whether a body is read that nobody wants, so that its client gets the answer.
    pub discarding: bool,
    /// Whether there was a complete head.
    pub served: bool,
    /// The end of the last answer.
    pub idle_since: Duration,
    /// Since when the client takes nothing of what is sent.
    pub blocked_since: Option<Duration>,
    pub sending: Sending,
}

/// Whether a client of HTTP/1 may still send something, while a request of it is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    Open,
    /// It waits to be asked for a body.
    Expects,
    /// It sends nothing more, and was sent nothing since then.
    HalfClosed(Duration),
    /// It has closed the connection.
    Left,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on; it is looked at again after this time.
    Wait(Duration),
    /// It ends in good order: after answers that are under way, which a client of HTTP/2 may still ask for.
    Finish,
    /// It is cut off.
    Abort(&'static str),
}

impl Observed {
    pub fn step(&self, timeouts: &Timeouts) -> Step {
        // What happens meanwhile is seen late by this at most.
        let soon = timeouts.send.min(timeouts.idle);
        let late = if self.order == Order::Serve { soon } else { soon.min(LINGER) };
        let mut until = self.now + late;
        if let Some(since) = self.blocked_since {
            if self.now >= since + timeouts.send {
                return Step::Abort("its client does not read");
            }
            until = until.min(since + timeouts.send);
        }
        match self.sending {
            Sending::Left => return Step::Abort("its client has left"),
            Sending::HalfClosed(since) if self.blocked_since.is_none() && self.now >= since + HALF_CLOSED => {
                return Step::Abort("its client has closed its side, and there was nothing to send to it for long");
            }
            Sending::HalfClosed(_) | Sending::Expects => until = until.min(self.now + LOOK),
            Sending::Open => {}
        }
        // An answer may be sent still, although its body is in hyper's buffers.
        if self.in_flight == 0 && self.blocked_since.is_none() {
            let patience = if self.served { timeouts.idle } else { timeouts.head };
            let end = match self.order {
                Order::Serve => self.idle_since + patience,
                Order::Drain => (self.idle_since + patience).min(self.idle_since.max(self.ordered) + LINGER),
                Order::Close | Order::End => self.now,
            };
            if self.order == Order::Close && self.discarding {
                return Step::Abort("it still sends a body that nobody wants, and others wait");
            }
            if self.now >= end {
                return if self.served { Step::Finish } else { Step::Abort("it sent no request") };
            }
            until = until.min(end);
        } else if self.order == Order::Close && self.bodies_waiting >= self.in_flight {
            return Step::Abort("it sends no more of its body, and others wait");
        } else if self.order == Order::End {
            return Step::Finish;
        }
        Step::Wait(until - self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { head: Duration::from_secs(10), idle: Duration::from_secs(120), send: Duration::from_secs(30) };
    const SECOND: Duration = Duration::from_secs(1);
    const NEW: Observed = Observed {
        now: Duration::ZERO,
        order: Order::Serve,
        ordered: Duration::ZERO,
        in_flight: 0,
        bodies_waiting: 0,
        discarding: false,
        served: false,
        idle_since: Duration::ZERO,
        blocked_since: None,
        sending: Sending::Open,
    };

    fn at(seconds: u32, observed: Observed) -> Step {
        Observed { now: SECOND * seconds, ..observed }.step(&TIMEOUTS)
    }

    #[test]
    fn a_head_must_come_and_then_another() {
        assert_eq!(at(0, NEW), Step::Wait(SECOND * 10));
        assert_eq!(at(9, NEW), Step::Wait(SECOND));
        assert!(matches!(at(10, NEW), Step::Abort(_)));
        let idle = Observed { served: true, idle_since: SECOND * 5, ..NEW };
        assert_eq!(at(100, idle), Step::Wait(SECOND * 25));
        assert_eq!(at(125, idle), Step::Finish);
        let busy = Observed { in_flight: 1, ..idle };
        assert_eq!(at(1000, busy), Step::Wait(SECOND * 30), "a function may take its time");
        let short = Timeouts { idle: SECOND, ..TIMEOUTS };
        let busy = Observed { now: SECOND * 5, ..busy };
        assert_eq!(busy.step(&short), Step::Wait(SECOND), "the end of its answer is seen in time");
    }

    #[test]
    fn an_answer_must_be_read() {
        let blocked = Observed { served: true, in_flight: 1, blocked_since: Some(SECOND * 5), ..NEW };
        assert_eq!(at(6, blocked), Step::Wait(SECOND * 29));
        assert!(matches!(at(35, blocked), Step::Abort(_)));
        let draining = Observed { in_flight: 0, order: Order::Drain, ordered: SECOND * 5, ..blocked };
        assert_eq!(at(10, draining), Step::Wait(LINGER), "its last answer is on its way");
    }

    #[test]
    fn who_sends_nothing_more_may_read() {
        let busy = Observed { served: true, in_flight: 1, ..NEW };
        let half_closed = Observed { sending: Sending::HalfClosed(SECOND * 5), ..busy };
        assert_eq!(at(6, half_closed), Step::Wait(LOOK));
        assert!(matches!(at(7, half_closed), Step::Abort(_)));
        assert_eq!(
            at(30, Observed { blocked_since: Some(SECOND * 5), ..half_closed }),
            Step::Wait(LOOK),
            "it reads slowly"
        );
        assert!(matches!(at(6, Observed { sending: Sending::Left, ..busy }), Step::Abort(_)));
    }

    #[test]
    fn draining_waits_for_who_may_be_about_to_ask() {
        let draining = Observed { order: Order::Drain, ordered: SECOND * 50, served: true, ..NEW };
        assert_eq!(at(50, draining), Step::Wait(LINGER));
        assert_eq!(at(53, draining), Step::Finish);
        assert_eq!(at(53, Observed { idle_since: SECOND * 52, ..draining }), Step::Wait(SECOND * 2));
        assert_eq!(at(53, Observed { in_flight: 1, ..draining }), Step::Wait(LINGER));
        assert!(matches!(at(53, Observed { served: false, idle_since: SECOND * 49, ..draining }), Step::Abort(_)));
    }

    #[test]
    fn closing_does_not_break_answers_off() {
        let closing = Observed { order: Order::Close, ..NEW };
        assert!(matches!(at(0, closing), Step::Abort(_)));
        assert_eq!(at(0, Observed { served: true, ..closing }), Step::Finish);
        let busy = Observed { served: true, in_flight: 1, ..closing };
        assert_eq!(at(0, busy), Step::Wait(LINGER), "it was idle when it was chosen");
        assert_eq!(at(0, Observed { order: Order::End, ..busy }), Step::Finish);
        assert!(matches!(at(0, Observed { bodies_waiting: 1, ..busy }), Step::Abort(_)));
        assert!(matches!(at(0, Observed { served: true, discarding: true, ..closing }), Step::Abort(_)));
    }
}

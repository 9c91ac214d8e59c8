//! From what came of an invocation to the answer.

use http::Response;

use super::{
    Api, Exchange,
    answer::{Timing, add_invocation_headers},
    problem::Problem,
    response,
};
use crate::{
    access_log::Record,
    exchange::{
        framing,
        response_body::{ResponseBody, Streamed},
    },
    sandbox::Reply,
};

impl Api {
    pub(super) fn answer(&self, reply: Reply, mut exchange: Exchange) -> Response<ResponseBody> {
        match reply {
            Reply::Ended { outcome, answer, hold } => {
                exchange.on_drop.release();
                exchange.timing.ended(&outcome);
                match response::ended(outcome, answer, exchange.function.output, exchange.trailers, exchange.is_head) {
                    Ok(response) => {
                        self.finished(response.map(|body| body.held(hold)), &exchange.record, &exchange.timing)
                    }
                    Err(problem) => self.failed(problem, exchange),
                }
            }
            Reply::Streaming { stream, cgroup, outcome } => {
                exchange.timing.cgroup = cgroup;
                exchange.record.streams();
                match response::streaming(stream, exchange.function.output, exchange.trailers) {
                    Ok((response, source)) => {
                        let Exchange { record, cancel, on_drop, timing, .. } = exchange;
                        let streamed = Streamed { record: record.clone(), cancel, on_drop, outcome };
                        let body = if framing::is_bodiless(response.status()) {
                            ResponseBody::empty()
                        } else {
                            ResponseBody::streaming(source, streamed, self.settings.max_output)
                        };
                        self.finished(response.map(|()| body), &record, &timing)
                    }
                    // The function still runs: dropping the exchange cancels it.
                    Err(problem) => self.failed(problem, exchange),
                }
            }
        }
    }

    pub(super) fn failed(&self, problem: Problem, exchange: Exchange) -> Response<ResponseBody> {
        let code = problem.code;
        exchange.record.answered(code.status(), code.as_str());
        self.with_invocation_headers(problem.into_response(), &exchange.timing)
    }

    fn finished(&self, response: Response<ResponseBody>, record: &Record, timing: &Timing) -> Response<ResponseBody> {
        record.answered(response.status(), "");
        self.with_invocation_headers(response, timing)
    }

    fn with_invocation_headers(&self, mut response: Response<ResponseBody>, timing: &Timing) -> Response<ResponseBody> {
        let in_flight = self.core.admission.in_flight();
        add_invocation_headers(response.headers_mut(), timing, in_flight, &self.settings.pod);
        response
    }
}

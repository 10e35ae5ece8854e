//! The deadline of a call: a tower layer that tonic's own server would have brought.
//!
//! In: the `grpc-timeout` header. Out: `DEADLINE_EXCEEDED` when the answer has not begun by then.
//! Always: the shorter of the caller's time and ours counts. A unary answer begins when it is complete, so the whole
//! call is bounded; a stream begins at once, and its length is its own affair.
//! Source: "gRPC over HTTP/2", <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tonic::Status;
use tower::{Layer, Service};

/// Bounds every call of the service below it.
#[derive(Clone, Copy, Debug)]
pub struct GrpcTimeoutLayer {
    /// The time of a call that brings none, and the most that one can bring.
    pub longest: Duration,
}

impl<S> Layer<S> for GrpcTimeoutLayer {
    type Service = GrpcTimeout<S>;

    fn layer(&self, inner: S) -> GrpcTimeout<S> {
        GrpcTimeout { inner, longest: self.longest }
    }
}

/// See [`GrpcTimeoutLayer`].
#[derive(Clone, Debug)]
pub struct GrpcTimeout<S> {
    inner: S,
    longest: Duration,
}

impl<S, A, B> Service<Request<A>> for GrpcTimeout<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let time = asked(request.headers()).map_or(self.longest, |asked| asked.min(self.longest));
        let answer = tokio::time::timeout(time, self.inner.call(request));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| {
                Ok(Status::deadline_exceeded("the call took longer than its deadline allows").into_http())
            })
        })
    }
}

/// The caller's `grpc-timeout`; `None` also for one that cannot be read, which the specification leaves to us.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most 8 digits, so nothing below overflows.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use std::convert::Infallible;
    use tower::{ServiceExt, service_fn};

    fn request(timeout: &str) -> Request<Body> {
        Request::builder().header("grpc-timeout", timeout).body(Body::empty()).unwrap()
    }

    #[test]
    fn every_unit_is_read_and_nonsense_is_not() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("1M", Some(Duration::from_secs(60))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("13m", Some(Duration::from_millis(13))),
            ("2u", Some(Duration::from_micros(2))),
            ("82n", Some(Duration::from_nanos(82))),
            ("", None),
            ("S", None),
            ("+1S", None),
            ("1", None),
            ("1s", None),
            ("123456789S", None),
        ] {
            assert_eq!(asked(request(text).headers()), expected, "{text}");
        }
        assert_eq!(asked(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_deadline_exceeded() {
        let never =
            service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let service = GrpcTimeoutLayer { longest: Duration::from_secs(10) }.layer(never);
        for (asked, bound) in [("1S", 1), ("1H", 10), ("nonsense", 10)] {
            let begin = tokio::time::Instant::now();
            let response = service.clone().oneshot(request(asked)).await.unwrap();
            assert_eq!(begin.elapsed().as_secs(), bound, "{asked}");
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], "4");
            assert_eq!(response.headers()["content-type"], "application/grpc");
        }
    }

    #[tokio::test]
    async fn an_answer_in_time_passes() {
        let quick =
            service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("x"))) });
        let service = GrpcTimeoutLayer { longest: Duration::from_secs(10) }.layer(quick);
        let response = service.oneshot(request("5S")).await.unwrap();
        assert!(response.headers().get("grpc-status").is_none());
    }
}

//! The entry point: serves an accepted stream, and runs each call.
//!
//! A panic in a connection ends that connection and never the shard.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use futures::future::select;
use futures::io::{AsyncRead, AsyncWrite};

use super::call::CallContext;
use super::connection::GrpcConnection;
use super::connection_end::ConnectionEnd;
use super::context::GrpcContext;
use super::drain::{ConnectionGuard, DrainStage};
use super::response;
use super::service::UnaryService;
use super::status::Status;
use super::unary_body::UnaryBody;
use crate::limits::LINGER_MAX;
use inventory_runtime::clock;

/// Serves one accepted connection until it ends. The future is `!Send`, owns the stream and never
/// panics; dropping it closes the connection. Must be polled on an executor of [`inventory_runtime`].
///
/// [`super::Drain`] counts the connection from this call on, before the first poll.
pub fn serve_connection<T, S>(
    stream: T,
    service: Rc<S>,
    context: Rc<GrpcContext>,
) -> impl Future<Output = ConnectionEnd>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: UnaryService,
{
    let report = ConnectionReport::new(&context);
    let guard = ConnectionGuard::new(&context.drain, clock::monotonic());
    serve_registered(stream, service, context, guard, report)
}

/// As [`serve_connection`], on the stream that `handshake` (TLS) returns. Until then the connection counts as one without
/// a handshake, which is the first to give way, and the end of a drain ends it. `handshake` limits its own time.
pub fn serve_after_handshake<H, T, S>(
    handshake: H,
    service: Rc<S>,
    context: Rc<GrpcContext>,
) -> impl Future<Output = ConnectionEnd>
where
    H: Future<Output = Option<T>>,
    T: AsyncRead + AsyncWrite + Unpin,
    S: UnaryService,
{
    let report = ConnectionReport::new(&context);
    let guard = ConnectionGuard::new(&context.drain, clock::monotonic());
    async move {
        // Moves the whole report into the future, as below.
        let mut report = report;
        let stream = {
            let mut handshake = std::pin::pin!(handshake);
            std::future::poll_fn(|cx| {
                guard.set_waker(cx.waker());
                if guard.is_evicted() {
                    return Poll::Ready(Err(ConnectionEnd::Evicted));
                }
                if context.drain.stage() == DrainStage::Aborted {
                    return Poll::Ready(Err(ConnectionEnd::Aborted));
                }
                let stream = std::task::ready!(handshake.as_mut().poll(cx));
                Poll::Ready(stream.ok_or(ConnectionEnd::SecurityHandshakeFailed))
            })
            .await
        };
        match stream {
            Ok(stream) => serve_registered(stream, service, context, guard, report).await,
            Err(end) => {
                report.end = end;
                end
            }
        }
    }
}

async fn serve_registered<T, S>(
    stream: T,
    service: Rc<S>,
    context: Rc<GrpcContext>,
    guard: ConnectionGuard,
    report: ConnectionReport,
) -> ConnectionEnd
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: UnaryService,
{
    // Moves the whole report into the future: a captured field alone would leave the drop outside.
    let mut report = report;
    let start = {
        let context = Rc::clone(&context);
        move |method, call, body| {
            let (service, context) = (Rc::clone(&service), Rc::clone(&context));
            run_call(service, context, method, call, body)
        }
    };
    let connection = GrpcConnection::<T, S, _, _>::new(stream, context, guard, start);
    report.end = run_contained(connection).await;
    report.end
}

/// Runs the connection so that a panic, in a poll or in a drop, ends only the connection.
async fn run_contained<T, S, M, F>(connection: GrpcConnection<T, S, M, F>) -> ConnectionEnd
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: UnaryService,
    M: Fn(S::Method, CallContext, UnaryBody) -> F,
    F: Future<Output = Result<Bytes, Status>>,
{
    let mut connection = Box::new(connection);
    let end = std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| connection.poll_serve(cx)))
            .unwrap_or(Poll::Ready(ConnectionEnd::Panicked))
    })
    .await;
    let linger = std::future::poll_fn(|cx| connection.poll_linger(end, cx));
    let limit = std::pin::pin!(inventory_runtime::sleep(LINGER_MAX));
    select(linger, limit).await;
    match catch_unwind(AssertUnwindSafe(move || drop(connection))) {
        Ok(()) => end,
        Err(_) => ConnectionEnd::Panicked,
    }
}

/// Reads the request, runs its handler and encodes the response.
async fn run_call<S: UnaryService>(
    service: Rc<S>,
    context: Rc<GrpcContext>,
    method: S::Method,
    call: CallContext,
    body: UnaryBody,
) -> Result<Bytes, Status> {
    let request = body.read_message().await?;
    let message = service.call(method, &call, request).await?;
    response::encode(&message, &mut context.response_buffer.borrow_mut())
}

/// Reports the start of the connection, and its end in every case.
struct ConnectionReport {
    context: Rc<GrpcContext>,
    end: ConnectionEnd,
}

impl ConnectionReport {
    fn new(context: &Rc<GrpcContext>) -> Self {
        context.observer.connection_opened();
        Self { context: Rc::clone(context), end: ConnectionEnd::Aborted }
    }
}

impl Drop for ConnectionReport {
    fn drop(&mut self) {
        self.context.observer.connection_closed(self.end);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::{Inventory, InventoryServer};
    use inventory_proto::inventory::v1 as pb;

    struct EmptyHandlers;

    impl Inventory for EmptyHandlers {
        async fn check_availability(
            &self,
            _: &CallContext,
            _: pb::CheckReq,
        ) -> Result<pb::CheckRes, Status> {
            Ok(pb::CheckRes::default())
        }

        async fn commit_reservation(
            &self,
            _: &CallContext,
            _: pb::CommitReq,
        ) -> Result<pb::CommitRes, Status> {
            Ok(pb::CommitRes::default())
        }

        async fn release_hold(
            &self,
            _: &CallContext,
            _: pb::ReleaseReq,
        ) -> Result<pb::ReleaseRes, Status> {
            Ok(pb::ReleaseRes::default())
        }

        async fn place_hold(
            &self,
            _: &CallContext,
            _: pb::PlaceHoldReq,
        ) -> Result<pb::PlaceHoldRes, Status> {
            Ok(pb::PlaceHoldRes::default())
        }

        async fn get_reservation(
            &self,
            _: &CallContext,
            _: pb::GetReservationReq,
        ) -> Result<pb::GetReservationRes, Status> {
            Ok(pb::GetReservationRes::default())
        }
    }

    /// A stream that panics when it is read, and again when it is dropped.
    struct PanickingStream;

    impl Drop for PanickingStream {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "panic in a drop");
        }
    }

    impl AsyncRead for PanickingStream {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            panic!("panic in a read");
        }
    }

    /// A socket whose answers go nowhere; `R` is what it reads.
    struct DiscardingStream<R>(R);

    impl<R: AsyncRead + Unpin> AsyncRead for DiscardingStream<R> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl<R: Unpin> AsyncWrite for DiscardingStream<R> {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_panic_ends_its_connection_and_not_the_shard() {
        let context = Rc::new(GrpcContext::for_tests());
        let service = Rc::new(InventoryServer::new(EmptyHandlers));
        let serving =
            serve_connection(DiscardingStream(PanickingStream), service, Rc::clone(&context));
        assert_eq!(context.drain.connections(), 1);
        let end = inventory_runtime::run_unpinned(serving).unwrap();
        assert_eq!(end, ConnectionEnd::Panicked);
        assert_eq!(context.drain.connections(), 0);
    }

    /// A client that floods its connection with SETTINGS frames and never pauses.
    struct FloodStream {
        preface: &'static [u8],
        /// Bytes of the current frame that are sent.
        offset: usize,
        /// Sends DATA frames of no stream instead, which end the connection.
        is_invalid: Rc<Cell<bool>>,
    }

    impl FloodStream {
        fn new(is_invalid: &Rc<Cell<bool>>) -> Self {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            Self { preface, offset: 0, is_invalid: Rc::clone(is_invalid) }
        }
    }

    impl AsyncRead for FloodStream {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let kind = if self.is_invalid.get() { 0 } else { 4 };
            let frame = [0, 0, 0, kind, 0, 0, 0, 0, 0];
            for byte in buf.iter_mut() {
                *byte = match self.preface.split_first() {
                    Some((first, rest)) => {
                        self.preface = rest;
                        *first
                    }
                    None => {
                        let byte = frame[self.offset];
                        self.offset = (self.offset + 1) % frame.len();
                        byte
                    }
                };
            }
            Poll::Ready(Ok(buf.len()))
        }
    }

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn of_flooded_connections_one_at_a_time_is_ready() {
        const FLOODS: usize = 5;
        let woken = async {
            let context = Rc::new(GrpcContext::for_tests());
            let service = Rc::new(InventoryServer::new(EmptyHandlers));
            let is_invalid = Rc::<Cell<bool>>::default();
            let mut floods: Vec<_> = (0..FLOODS)
                .map(|_| {
                    let (service, context) = (Rc::clone(&service), Rc::clone(&context));
                    let stream = DiscardingStream(FloodStream::new(&is_invalid));
                    Box::pin(serve_connection(stream, service, context))
                })
                .collect();
            let wakes: Vec<Arc<WakeCount>> = (0..FLOODS).map(|_| Arc::default()).collect();
            let mut poll = |flood: usize| {
                let waker = Waker::from(Arc::clone(&wakes[flood]));
                assert!(floods[flood].as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            };
            (0..FLOODS).for_each(&mut poll);
            let woken = async || {
                inventory_runtime::after_io().await;
                wakes.iter().map(|count| count.0.swap(0, Ordering::SeqCst)).collect()
            };
            let mut rounds: Vec<Vec<usize>> = vec![woken().await];
            for flood in 0..FLOODS {
                poll(flood);
                rounds.push(woken().await);
            }
            // A connection that ends passes its turn on at once. Then it discards what arrives, and takes turns for that.
            is_invalid.set(true);
            for flood in 0..FLOODS {
                poll(flood);
                rounds.push(woken().await);
            }
            rounds
        };
        let rounds = inventory_runtime::run_unpinned(woken).unwrap();
        for (round, woken) in rounds.into_iter().enumerate() {
            let expected: Vec<usize> =
                (0..FLOODS).map(|flood| usize::from(flood == round % FLOODS)).collect();
            assert_eq!(woken, expected, "round {round}");
        }
    }
}

//! The clock of a campaign test. It stands still while the campaign works and moves when the test lets time pass, so that
//! a test of an hour takes as long as the work in it.
//!
//! Tokio's clock is paused, and a blocking task that lasts as long as the test keeps Tokio from moving it by itself. How
//! long the campaign works is told by the runtime: its thread parks when no task can go on. Sockets are looked at when it
//! parks, hence several times; and what the state store's threads still do is counted.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A campaign works no longer if the runtime found nothing to do so many times in a row: as many hops over sockets of this
/// machine may follow each other.
const CALM: u32 = 24;
/// A turn of the threads beside the runtime, and of the kernel, which may carry what is on a socket a little later.
const GLANCE: Duration = Duration::from_micros(50);
/// Shortest step in which time passes. Timers are late by less than one.
const SHORTEST: Duration = Duration::from_millis(10);
/// Steps of a long span.
const STEPS: u32 = 1000;

/// Told by the runtime when its thread has nothing to do.
#[derive(Default)]
struct Idle(Mutex<Option<Waker>>);

impl Idle {
    fn parked(&self) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Resolves when the runtime has nothing to do.
struct NextIdle<'a> {
    idle: &'a Idle,
    asked: bool,
}

impl Future for NextIdle<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.idle.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.asked && waiting.is_none() {
            return Poll::Ready(());
        }
        *waiting = Some(cx.waker().clone());
        drop(waiting);
        self.asked = true;
        Poll::Pending
    }
}

/// Operations on threads beside the runtime.
#[derive(Clone, Debug, Default)]
pub struct Beside(Arc<AtomicUsize>);

impl Beside {
    /// One more, until the guard is dropped.
    pub fn begin(&self) -> Working {
        self.0.fetch_add(1, Ordering::SeqCst);
        Working(Arc::clone(&self.0))
    }
}

/// An operation on a thread beside the runtime.
#[derive(Debug)]
pub struct Working(Arc<AtomicUsize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A runtime whose clock stands still, and the clock.
pub fn runtime() -> std::io::Result<(Runtime, Clock)> {
    let idle = Arc::new(Idle::default());
    let told = Arc::clone(&idle);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .on_thread_park(move || told.parked())
        .start_paused(true)
        .build()?;
    let (still, hold) = mpsc::channel::<()>();
    // Until the clock is dropped.
    runtime.spawn_blocking(move || hold.recv());
    let clock = Clock {
        idle,
        beside: Beside::default(),
        sockets: AtomicBool::new(false),
        _still: still,
    };
    Ok((runtime, clock))
}

/// The clock of one test.
pub struct Clock {
    idle: Arc<Idle>,
    beside: Beside,
    sockets: AtomicBool,
    _still: mpsc::Sender<()>,
}

impl Clock {
    /// Where operations beside the runtime are counted.
    pub fn beside(&self) -> Beside {
        self.beside.clone()
    }

    /// From now on sockets are in use.
    pub fn with_sockets(&self) {
        self.sockets.store(true, Ordering::Relaxed);
    }

    /// Waits until the campaign can do nothing more at this moment.
    pub async fn settle(&self) {
        self.calm_down().await;
        if self.sockets.load(Ordering::Relaxed) {
            std::thread::sleep(GLANCE);
            self.calm_down().await;
        }
    }

    async fn calm_down(&self) {
        let mut calm = 0;
        while calm < CALM {
            NextIdle {
                idle: &self.idle,
                asked: false,
            }
            .await;
            match self.beside.0.load(Ordering::SeqCst) {
                0 => calm += 1,
                _ => {
                    calm = 0;
                    std::thread::sleep(GLANCE);
                }
            }
        }
    }

    /// Lets a moment pass: the shortest step.
    pub async fn tick(&self) -> Duration {
        self.step(SHORTEST).await;
        SHORTEST
    }

    /// Lets time pass, in steps, so that what waits for something that waits comes to its end as well.
    pub async fn advance(&self, span: Duration) {
        self.advance_by(span, (span / STEPS).max(SHORTEST)).await;
    }

    /// The same, in steps of this length: timers are late by less than one.
    pub async fn advance_by(&self, span: Duration, step: Duration) {
        let mut left = span;
        self.settle().await;
        while !left.is_zero() {
            let now = step.min(left);
            self.step(now).await;
            left -= now;
        }
    }

    async fn step(&self, span: Duration) {
        vumi_core::clock::advance(span);
        tokio::time::advance(span).await;
        self.settle().await;
    }

    /// Does `work`, for which time passes as it needs it, up to `limit`; none if that was not enough.
    pub async fn drive<T>(&self, work: impl Future<Output = T>, limit: Duration) -> Option<T> {
        tokio::pin!(work);
        let mut passed = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.settle() => {}
            }
            if passed >= limit {
                return None;
            }
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                step = self.tick() => passed += step,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    #[test]
    fn an_hour_passes_in_no_time_and_everything_in_it_happens_in_turn() {
        let (runtime, clock) = runtime().unwrap();
        let real = std::time::Instant::now();
        runtime.block_on(async {
            let (wall, began) = (vumi_core::clock::now(), Instant::now());
            // Each wait begins when the one before ended: what one jump of the clock would miss.
            let chain = tokio::spawn(async move {
                for minutes in [1, 2, 4, 8, 16] {
                    tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
                }
                began.elapsed()
            });
            clock.advance(Duration::from_secs(3600)).await;
            assert!(chain.is_finished());
            let took = chain.await.unwrap();
            assert!(
                took >= Duration::from_secs(31 * 60) && took < Duration::from_secs(32 * 60),
                "{took:?}"
            );
            assert_eq!(began.elapsed(), Duration::from_secs(3600));
            let wall = vumi_core::clock::now().duration_since(wall).unwrap();
            assert!(wall >= Duration::from_secs(3600), "{wall:?}");
        });
        assert!(real.elapsed() < Duration::from_secs(600));
    }

    #[test]
    fn settled_means_that_sockets_and_threads_are_done() {
        let (runtime, clock) = runtime().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    byte[0] += 1;
                    stream.write_all(&byte).await.unwrap();
                }
            });
            clock.with_sockets();
            let beside = clock.beside();
            let answer = tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let mut byte = [0];
                for _ in 0..5 {
                    stream.write_all(&byte).await.unwrap();
                    stream.read_exact(&mut byte).await.unwrap();
                }
                let working = beside.begin();
                let slept =
                    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(30)));
                slept.await.unwrap();
                drop(working);
                byte[0]
            });
            let began = Instant::now();
            clock.settle().await;
            assert!(answer.is_finished());
            assert_eq!(
                (answer.await.unwrap(), began.elapsed()),
                (5, Duration::ZERO)
            );
        });
    }
}

//! Which tests run at one time: most of them beside each other, those that disturb the whole cluster alone.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static CLUSTER: RwLock<()> = RwLock::new(());

/// What a test holds as long as it uses the cluster.
#[allow(dead_code, reason = "held, not read")]
enum Hold {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

thread_local! {
    /// Each test has a thread of its own. Taking the lock twice in one thread would wait for ever.
    static MINE: RefCell<Weak<Hold>> = const { RefCell::new(Weak::new()) };
}

/// The right to use the cluster; it ends when all that the test took are dropped.
pub struct Turn(#[allow(dead_code, reason = "held, not read")] Rc<Hold>);

/// The right to use the cluster while no other test does.
pub struct Alone(#[allow(dead_code, reason = "held, not read")] Turn);

/// Uses the cluster beside other tests; waits while one of them disturbs it. A [`crate::Namespace`] does so by itself.
pub fn beside_others() -> Turn {
    // A test that failed has not spoilt anything that the lock guards.
    take(|| Hold::Shared(CLUSTER.read().unwrap_or_else(|e| e.into_inner())))
}

/// Waits until no other test uses the cluster, and keeps them off it. It comes first in a test: one that uses the cluster
/// beside others already would wait for itself.
///
/// # Panics
/// In a test that uses the cluster already.
pub fn alone() -> Alone {
    let used = MINE.with_borrow(|mine| mine.strong_count() > 0);
    assert!(!used, "alone() comes first in a test");
    let exclusive = || Hold::Alone(CLUSTER.write().unwrap_or_else(|e| e.into_inner()));
    Alone(take(exclusive))
}

fn take(hold: impl FnOnce() -> Hold) -> Turn {
    MINE.with_borrow_mut(|mine| {
        let held = mine.upgrade().unwrap_or_else(|| Rc::new(hold()));
        *mine = Rc::downgrade(&held);
        Turn(held)
    })
}

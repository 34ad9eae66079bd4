//! How long a message may stay in each state before its row is overdue, which is the loss alarm (R10): the one table.

use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// On top of a wait that is known, such as a back-off.
pub(super) const QUEUED: Duration = Duration::from_secs(10 * 60);
/// Given to Vumi's failure worker, which waits for an hour at most unless its `retry_max_delay` says otherwise.
pub(super) const EXTERNAL: Duration = Duration::from_secs(2 * 3600);
/// With the replica that holds the request alone: it is given so much again and again while that one has it, and while it is
/// being sent up to [`SENDING`] in all. If that replica dies, its queue dies with it, and nothing brings the message back.
pub(super) const FORWARDED: Duration = match cfg!(test) {
    true => Duration::from_secs(1),
    false => Duration::from_secs(30),
};
/// Being sent: longer than any peer is waited for.
pub(super) const SENDING: Duration = Duration::from_secs(5 * 60);
/// Decided, and its sender is being told.
pub(crate) const TELLING: Duration = match cfg!(test) {
    true => Duration::from_secs(1),
    false => Duration::from_secs(30),
};
/// A receipt is expected: networks try for two days, and some receipts are slow.
pub(super) const SENT: Duration = Duration::from_secs(72 * 3600);
/// A receipt is waited for although the answer was lost, where the manifest gives no deadline.
pub(super) const UNKNOWN: Duration = DAY;
/// A person is to look at it.
pub(super) const PARKED: Duration = WEEK;
/// To be sent again, and already published again.
pub(crate) const SENT_BACK: Duration = MINUTE;
/// Passed on to its class, where a campaign may take its time: a hundred thousand at one a second take more than a day.
pub(crate) const CLASS: Duration = WEEK;
/// A person holds it, for as long as that person likes.
pub(super) const PAUSED: Duration = Duration::from_secs(90 * 24 * 3600);

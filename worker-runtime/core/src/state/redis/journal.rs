//! The journal: a list for each lane, and for each group a sorted set of its lanes by the time at which somebody may
//! work on them.

use super::RedisStore;
use super::errors::unreadable;
use super::keys::{name, part};
use super::script::{at_most, millis, script};
use crate::codes;
use crate::error::WorkError;
use crate::state::journal::{
    Append, Cause, Claimed, Depth, Due, Entry, Filter, Journal, Lane, Listed, Mover, Next,
    Outgoing, Step, Withdrawn, superseded,
};
use async_trait::async_trait;
use bytes::Bytes;
use redis::{FromRedisValue, ScriptInvocation, Value};
use std::time::{Duration, UNIX_EPOCH};

/// Lanes that one step of a walk is given.
const LANES: usize = 200;
/// Entries that one step looks at: a few milliseconds.
const LOOKS: usize = 1000;
/// Entries that one step brings along.
const ROOM: usize = 200;

/// What a walk does with entries that match.
#[derive(Clone, Copy, PartialEq)]
enum What {
    List,
    /// For an erasure: nobody is told.
    Remove,
    Withdraw(Cause, Duration),
    Release,
}

#[async_trait]
impl Journal for RedisStore {
    async fn append(&self, queue: &str, messages: Vec<Append>) -> Result<(), WorkError> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut call = self.journal(script!("journal_lib", "append"), queue);
        for Append { lane, due, entry } in &messages {
            lane_args(&mut call, lane);
            call.arg(due_text(*due)).arg(entry.encode().as_ref());
        }
        self.link.script(&call).await
    }

    async fn lanes(&self, queue: &str) -> Result<Vec<Lane>, WorkError> {
        let call = self.journal(script!("journal_lib", "lanes"), queue);
        let groups: Vec<(String, Vec<String>)> = self.link.script(&call).await?;
        let mut lanes = Vec::new();
        for (group, numbers) in groups {
            for number in numbers {
                lanes.push(lane(&number, &group)?);
            }
        }
        lanes.sort_unstable();
        Ok(lanes)
    }

    async fn heads(&self, queue: &str, lanes: &[Lane]) -> Result<Vec<Option<Entry>>, WorkError> {
        let mut heads = Vec::with_capacity(lanes.len());
        for some in lanes.chunks(LANES) {
            let mut call = self.journal(script!("journal_lib", "heads"), queue);
            for lane in some {
                lane_args(&mut call, lane);
            }
            let found: Vec<Option<Bytes>> = self.link.script(&call).await?;
            if found.len() != some.len() {
                return Err(unreadable("heads of lanes"));
            }
            for stored in found {
                heads.push(stored.map(|stored| entry(&stored).1));
            }
        }
        Ok(heads)
    }

    async fn groups(&self, queue: &str) -> Result<Vec<String>, WorkError> {
        let call = self.journal(script!("journal_lib", "groups"), queue);
        let groups: Vec<String> = self.link.script(&call).await?;
        let mut groups: Vec<_> = groups.iter().map(|group| name(group)).collect();
        groups.sort_unstable();
        Ok(groups)
    }

    async fn claim(
        &self,
        queue: &str,
        group: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Claimed>, WorkError> {
        let mut call = self.journal(script!("journal_lib", "claim"), queue);
        call.arg(part(group)).arg(at_most(limit)).arg(millis(lease));
        let heads: Vec<(String, Bytes, bool)> = self.link.script(&call).await?;
        let claimed = heads.into_iter().map(|(number, stored, again)| {
            let lane = lane(&number, &part(group))?;
            let (id, entry) = entry(&stored);
            Ok(Claimed {
                lane,
                id,
                entry,
                again,
            })
        });
        claimed.collect()
    }

    async fn next_due(&self, queue: &str) -> Result<Option<Duration>, WorkError> {
        let call = self.journal(script!("journal_lib", "next_due"), queue);
        let wait: i64 = self.link.script(&call).await?;
        Ok(u64::try_from(wait).ok().map(Duration::from_millis))
    }

    async fn step(
        &self,
        queue: &str,
        lane: &Lane,
        id: u64,
        step: Step,
        lease: Duration,
    ) -> Result<Next, WorkError> {
        let mut call = self.journal(script!("journal_lib", "step"), queue);
        lane_args(&mut call, lane);
        call.arg(id).arg(millis(lease));
        if let Step::Again(about, due) = step {
            let body = Bytes::new();
            call.arg(Entry { about, body }.encode().as_ref())
                .arg(due_text(due));
        }
        let answer: Vec<Value> = self.link.script(&call).await?;
        next(answer, lane).ok_or_else(|| unreadable("a step"))
    }

    async fn renew(&self, queue: &str, lanes: &[Lane], lease: Duration) -> Result<(), WorkError> {
        let mut call = self.journal(script!("journal_lib", "renew"), queue);
        call.arg(if lease.is_zero() { 0 } else { millis(lease) });
        for lane in lanes {
            lane_args(&mut call, lane);
        }
        self.link.script(&call).await
    }

    async fn reclaim(&self, queue: &str) -> Result<(), WorkError> {
        let call = self.journal(script!("journal_lib", "reclaim"), queue);
        self.link.script(&call).await
    }

    async fn relocate(
        &self,
        mover: &Mover,
        queue: &str,
        to: &str,
        lanes: &[Lane],
    ) -> Result<u64, WorkError> {
        let (mut relocated, mut rest) = (0, lanes);
        while !rest.is_empty() {
            let mut call = self.journal(script!("journal_lib", "relocate"), queue);
            call.arg(part(to)).arg(LOOKS);
            call.arg(part(&mover.queue)).arg(&mover.token);
            for lane in &rest[..rest.len().min(LANES)] {
                lane_args(&mut call, lane);
            }
            let answer: Option<(usize, u64)> = self.link.script(&call).await?;
            let (finished, moved) = answer.ok_or_else(|| superseded(mover))?;
            rest = &rest[finished.min(rest.len())..];
            relocated += moved;
        }
        Ok(relocated)
    }

    async fn appoint(&self, mover: &Mover) -> Result<(), WorkError> {
        let mut set = redis::cmd("HSET");
        set.arg(self.keys.movers());
        set.arg(part(&mover.queue)).arg(&mover.token);
        self.link.command(&set).await
    }

    async fn dismiss(&self, queue: &str) -> Result<(), WorkError> {
        let mut delete = redis::cmd("HDEL");
        delete.arg(self.keys.movers()).arg(part(queue));
        self.link.command(&delete).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, WorkError> {
        let call = self.journal(script!("journal_lib", "depth"), queue);
        let (messages, lanes) = self.link.script(&call).await?;
        Ok(Depth { messages, lanes })
    }

    async fn queues(&self) -> Result<Vec<String>, WorkError> {
        let key = self.keys.journal();
        let queues: Vec<String> = self.link.command(redis::cmd("HKEYS").arg(key)).await?;
        let mut queues: Vec<_> = queues.iter().map(|queue| name(queue)).collect();
        queues.sort_unstable();
        Ok(queues)
    }

    async fn list(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<Listed>, WorkError> {
        Ok(self.all(queue, What::List, filter, limit).await?.0)
    }

    async fn release(&self, queue: &str, filter: &Filter) -> Result<u64, WorkError> {
        let mut walk = self.walk(queue, What::Release, filter).await?;
        while walk.next(ROOM).await?.is_some() {}
        Ok(walk.count)
    }

    async fn withdraw(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
        cause: Cause,
        lease: Duration,
    ) -> Result<Withdrawn, WorkError> {
        let (found, in_hand) = self
            .all(queue, What::Withdraw(cause, lease), filter, limit)
            .await?;
        let outgoing = |listed: Listed| Outgoing {
            queue: listed.queue,
            id: listed.id,
            cause,
            entry: listed.entry,
        };
        Ok(Withdrawn {
            taken: found.into_iter().map(outgoing).collect(),
            in_hand,
        })
    }

    async fn outgoing(&self, queue: &str, limit: usize) -> Result<Vec<Outgoing>, WorkError> {
        let mut call = self.journal(script!("journal_lib", "outgoing"), queue);
        call.arg(at_most(limit));
        self.leaving(queue, &call).await
    }

    async fn adopt(
        &self,
        queue: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<Outgoing>, WorkError> {
        let mut call = self.journal(script!("journal_lib", "adopt"), queue);
        call.arg(at_most(limit)).arg(millis(lease));
        self.leaving(queue, &call).await
    }

    async fn forget(&self, queue: &str, ids: &[u64]) -> Result<(), WorkError> {
        self.left(queue, ids).await.map(drop)
    }
}

impl RedisStore {
    fn journal<'a>(&self, script: &'a redis::Script, queue: &str) -> ScriptInvocation<'a> {
        let mut call = script.key(self.keys.journal());
        call.arg(part(queue));
        call
    }

    async fn leaving(
        &self,
        queue: &str,
        call: &ScriptInvocation<'_>,
    ) -> Result<Vec<Outgoing>, WorkError> {
        let found: Vec<Bytes> = self.link.script(call).await?;
        let read = |stored: Bytes| {
            let read = outgoing(queue, &stored);
            if read.is_none() {
                let code = codes::STATE_UNREADABLE.name;
                tracing::warn!(
                    code,
                    queue,
                    "Redis holds a message on its way out of a journal that cannot be read: it is left as it is"
                );
            }
            read
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    /// Removes messages on their way out; how many were there.
    pub(super) async fn left(&self, queue: &str, ids: &[u64]) -> Result<u64, WorkError> {
        let mut call = self.journal(script!("journal_lib", "forget"), queue);
        for id in ids {
            call.arg(id);
        }
        self.link.script(&call).await
    }

    /// Removes entries wherever they stand, in hand or not; how many.
    pub(super) async fn remove(
        &self,
        queue: &str,
        filter: &Filter,
        limit: usize,
    ) -> Result<usize, WorkError> {
        let (removed, _) = self.all(queue, What::Remove, filter, limit).await?;
        Ok(removed.len())
    }

    /// What a walk found, and what it counted.
    async fn all(
        &self,
        queue: &str,
        what: What,
        filter: &Filter,
        limit: usize,
    ) -> Result<(Vec<Listed>, u64), WorkError> {
        let mut walk = self.walk(queue, what, filter).await?;
        let mut found = Vec::new();
        while found.len() < limit {
            match walk.next(ROOM.min(limit - found.len())).await? {
                Some(page) => found.extend(page),
                None => break,
            }
        }
        Ok((found, walk.count))
    }

    /// A walk along the entries of a queue, to look at them.
    pub(super) async fn look(&self, queue: &str) -> Result<Walk<'_>, WorkError> {
        self.walk(queue, What::List, &Filter::default()).await
    }

    async fn walk(&self, queue: &str, what: What, filter: &Filter) -> Result<Walk<'_>, WorkError> {
        let lanes = match filter.one_lane() {
            Some(lane) => vec![lane],
            None => {
                let mut lanes = self.lanes(queue).await?;
                lanes.retain(|lane| filter.takes_lane(lane));
                lanes
            }
        };
        let json = |value: serde_json::Result<String>| value.map_err(|_| unreadable("a filter"));
        let reason = match filter.reason {
            Some(reason) => json(serde_json::to_string(&reason))?
                .trim_matches('"')
                .to_owned(),
            None => String::new(),
        };
        let ids = match &filter.ids {
            Some(ids) => json(serde_json::to_string(ids))?,
            None => String::new(),
        };
        Ok(Walk {
            store: self,
            queue: queue.to_owned(),
            what,
            reason,
            ids,
            before: filter.before.map_or(String::new(), |time| time.to_string()),
            lanes,
            done: 0,
            after: 0,
            count: 0,
        })
    }
}

/// A walk along lanes, step by step, so that Redis serves others in between.
pub(super) struct Walk<'a> {
    store: &'a RedisStore,
    queue: String,
    what: What,
    reason: String,
    ids: String,
    before: String,
    lanes: Vec<Lane>,
    /// Lanes that are finished.
    done: usize,
    /// Number of the last entry that was looked at in the next one.
    after: u64,
    /// Lanes released, or heads that somebody works on.
    count: u64,
}

type Row = (String, String, u64, String, Bytes);

impl Walk<'_> {
    /// What one step found, at most `room`; none when it is over.
    pub(super) async fn next(&mut self, room: usize) -> Result<Option<Vec<Listed>>, WorkError> {
        let rest = &self.lanes[self.done.min(self.lanes.len())..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (what, cause, lease) = match self.what {
            What::List => ("list", "", 0),
            What::Remove => ("remove", "", 0),
            What::Release => ("release", "", 0),
            What::Withdraw(cause, lease) => ("withdraw", cause.as_str(), millis(lease)),
        };
        let mut call = self
            .store
            .journal(script!("journal_lib", "walk"), &self.queue);
        call.arg(what)
            .arg(room)
            .arg(LOOKS)
            .arg(&self.reason)
            .arg(&self.ids)
            .arg(&self.before)
            .arg(cause)
            .arg(lease)
            .arg(self.after);
        for lane in &rest[..rest.len().min(LANES)] {
            lane_args(&mut call, lane);
        }
        let (finished, after, count, rows): (usize, u64, u64, Vec<Row>) =
            self.store.link.script(&call).await?;
        self.done += finished;
        self.after = after;
        self.count += count;
        let listed = rows.into_iter().map(|(number, group, place, due, stored)| {
            let lane = lane(&number, &group)?;
            let (id, entry) = entry(&stored);
            Ok(Listed {
                queue: self.queue.clone(),
                lane,
                id,
                place,
                due: due.parse().ok(),
                entry,
            })
        });
        listed.collect::<Result<_, _>>().map(Some)
    }
}

fn lane_args(call: &mut ScriptInvocation<'_>, lane: &Lane) {
    call.arg(format!("{:016x}", lane.number))
        .arg(part(&lane.group));
}

fn lane(number: &str, group: &str) -> Result<Lane, WorkError> {
    let number = u64::from_str_radix(number, 16).map_err(|_| unreadable("a lane"))?;
    Ok(Lane {
        group: name(group),
        number,
    })
}

/// An entry and its number. What has none, and is nothing that we wrote, counts as 0, as in the scripts.
fn entry(stored: &Bytes) -> (u64, Entry) {
    let digits = stored.iter().take_while(|b| b.is_ascii_digit()).count();
    let number = std::str::from_utf8(&stored[..digits]).ok();
    let id = number.and_then(|number| number.parse().ok());
    match id.filter(|_| stored.get(digits) == Some(&b':')) {
        Some(id) => (id, Entry::decode(&stored.slice(digits + 1..))),
        None => (0, Entry::decode(stored)),
    }
}

/// A message on its way out: the cause, a colon, its entry. None of a cause that only a later version knows.
fn outgoing(queue: &str, stored: &Bytes) -> Option<Outgoing> {
    let of = |cause: Cause| {
        let rest = stored.strip_prefix(cause.as_str().as_bytes())?;
        let rest = stored.slice_ref(rest.strip_prefix(b":")?);
        Some((cause, rest))
    };
    let known = [Cause::Dropped, Cause::Expired].into_iter().find_map(of);
    let (cause, rest) = known?;
    let (id, entry) = entry(&rest);
    Some(Outgoing {
        queue: queue.to_owned(),
        id,
        cause,
        entry,
    })
}

fn due_text(due: Due) -> String {
    match due {
        Due::After(span) if span.is_zero() => "+0".into(),
        Due::After(span) => format!("+{}", millis(span)),
        Due::At(time) => millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()).to_string(),
        Due::Released => "+inf".into(),
    }
}

fn next(answer: Vec<Value>, lane: &Lane) -> Option<Next> {
    let mut answer = answer.into_iter();
    let mut take = || {
        answer
            .next()
            .and_then(|value| Bytes::from_redis_value(value).ok())
    };
    match take().as_deref()? {
        b"waits" => Some(Next::Waits),
        b"empty" => Some(Next::Empty),
        b"moved" => Some(Next::Moved),
        b"head" => {
            let (id, entry) = entry(&take()?);
            Some(Next::Head(Claimed {
                lane: lane.clone(),
                id,
                entry,
                again: false,
            }))
        }
        _ => None,
    }
}

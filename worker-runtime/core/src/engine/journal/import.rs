//! What Vumi's failure worker kept for a later attempt, and its scheduler for a later time, is taken over (R3): journaled
//! first, then forgotten there, so that a crash in between repeats it and loses nothing. Vumi gave these messages no order,
//! and they get none.

use super::hold::{millis, own_list};
use super::store::Access;
use crate::engine::journal::Reason;
use crate::message::{Message, UserMessage};
use crate::state::FirstSeen;
use crate::state::first_seen::Reserved;
use crate::state::journal::{About, Append, Due, Entry, Lane as Place};
use crate::state::legacy::Reading;
use std::time::{Duration, UNIX_EPOCH};

/// Group of what was taken over: each is a list of its own.
const IMPORTED: &str = "@imported";
/// Messages at a time.
const BATCH: usize = 500;
/// Of replicas without a fence one takes over at a time. If it dies, another does after this.
const HOLD: Duration = Duration::from_secs(300);
/// The others look so often whether it is done.
const LOOK: Duration = Duration::from_secs(5);

/// Takes over everything of a transport; the lists in which it stands now. None if it was given up. `alone`: a fence says
/// that nobody else does the same.
pub(super) async fn import(
    access: &Access,
    term: u64,
    alone: bool,
    (transport, from): (&str, Reading),
) -> Option<Vec<Place>> {
    if alone || access.exit.store.legacy_retries().is_none() {
        return import_all(access, term, transport, from).await;
    }
    let store = &access.exit.store;
    let reserve = || store.reserve(IMPORTED, transport, HOLD);
    loop {
        match access.insist(Some(term), reserve).await? {
            Reserved::First => break,
            // Whoever is at it may die.
            Reserved::Pending(hold) => tokio::select! {
                () = tokio::time::sleep(hold.min(LOOK)) => {}
                () = access.halt.cancelled() => return None,
            },
            Reserved::Seen(_) => return Some(Vec::new()),
        }
    }
    let places = import_all(access, term, transport, from).await;
    let release = || FirstSeen::release(&**store, IMPORTED, transport);
    access.insist(Some(term), release).await?;
    places
}

async fn import_all(
    access: &Access,
    term: u64,
    transport: &str,
    from: Reading,
) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let Some(legacy) = access.exit.store.legacy_retries() else {
        return Some(places);
    };
    let mut from = Some(from);
    while let Some(place) = from {
        let read = || legacy.import_retries(transport, place, BATCH);
        let (retries, next) = access.insist(Some(term), read).await?;
        from = next;
        if retries.is_empty() {
            continue;
        }
        let mut keys = Vec::with_capacity(retries.len());
        let mut messages = Vec::with_capacity(retries.len());
        for retry in retries {
            let id = UserMessage::decode(&retry.body).map(Message::from);
            let id = id.map_or_else(|_| retry.key.clone(), |message| message.id().to_owned());
            let lane = own_list(IMPORTED, &id);
            let about = About {
                reason: Reason::Imported,
                // Vumi did not write down when it came first: its life begins now, or when it is due.
                since: retry.due.max(millis(crate::clock::now())),
                attempts: 0,
                counted: 0,
                code: String::new(),
                text: String::new(),
                routing_key: access.queue.clone(),
                amqp_message_id: None,
            };
            places.push(lane.clone());
            messages.push(Append {
                lane,
                due: Due::At(UNIX_EPOCH + Duration::from_millis(retry.due)),
                entry: Entry {
                    about,
                    body: retry.body,
                },
            });
            keys.push(retry.key);
        }
        if !access.append(Some(term), messages).await {
            return None;
        }
        let told = || legacy.imported(transport, &keys);
        access.insist(Some(term), told).await?;
    }
    if !places.is_empty() {
        let count = places.len();
        tracing::info!(
            queue = access.queue,
            count,
            "what Vumi kept for later was taken over into the journal"
        );
    }
    Some(places)
}

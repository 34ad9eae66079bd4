//! What Vumi's failure worker kept for a later attempt is taken over (R3): journaled first, then forgotten there, so that a
//! crash in between repeats it and loses nothing. Vumi gave these messages no order, and they get none.

use super::hold::{millis, own_list};
use super::store::Access;
use crate::engine::journal::Reason;
use crate::message::{Message, UserMessage};
use crate::state::journal::{About, Append, Due, Entry, Lane as Place};
use std::time::{Duration, UNIX_EPOCH};

/// Group of what was taken over: each is a list of its own.
const IMPORTED: &str = "@imported";
/// Messages at a time.
const BATCH: usize = 500;

/// Takes over every retry of a transport; the lists that they stand in now. None if it was given up.
pub(super) async fn import(access: &Access, term: u64, transport: &str) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    let Some(legacy) = access.exit.store.legacy_retries() else {
        return Some(places);
    };
    loop {
        let read = || legacy.import_retries(transport, BATCH);
        let retries = access.insist(Some(term), read).await?;
        if retries.is_empty() {
            break;
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
            "retries of Vumi were taken over into the journal"
        );
    }
    Some(places)
}

//! Listening to one virtual host and reading its queues, with the credentials of the Secret as it is, for all links that lead
//! there with the same.

use super::ears::Ears;
use super::identify::identify;
use super::link::{Link, unread};
use super::management::Management;
use super::shared::{Access, Entry, Member};
use super::{Place, tell};
use crate::engine::Engine;
use crate::metrics::BrokerRows;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use vumi_core::broker::LinkState;
use vumi_core::broker::amqp::AmqpBroker;
use vumi_core::broker::amqp::AmqpConfig;
use vumi_core::secrets::Secrets;
use vumi_plan::{Broker, Queue, Unread};

/// Between two readings of a virtual host (K19).
const EVERY: Duration = Duration::from_secs(5);
/// A reading takes at most one part of so many of the time: a large broker is read less often.
const SHARE: u32 = 10;
/// Where only consumers are counted, queue by queue, it is done less often.
const COUNT: Duration = Duration::from_secs(30);
/// After what cannot be helped by trying again at once.
const PAUSE: Duration = Duration::from_secs(10);

/// Keeps a session, for as long as it is polled.
pub(super) async fn keep(engine: Arc<Engine>, link: Arc<Link>) {
    loop {
        if let Err(why) = session(&engine, &link).await {
            let said = Arc::new(unread(Unread::Broker(why)));
            took(&engine, &[Arc::clone(&link)], |_| Arc::clone(&said));
            tokio::time::sleep(PAUSE).await;
        }
        link.deaf();
    }
}

/// Takes what was read for each of these links, and has those looked at of whom it says something new.
fn took(engine: &Engine, links: &[Arc<Link>], said: impl Fn(&Link) -> Arc<Broker>) {
    // Links that share a session have read the same before as well.
    let mut last: Option<(Arc<Broker>, Arc<Broker>, BTreeSet<String>)> = None;
    for link in links {
        let new = said(link);
        let old = link.read(Arc::clone(&new));
        log_change(link, &new, &old);
        let same = |(before, now, _): &(Arc<Broker>, Arc<Broker>, BTreeSet<String>)| {
            Arc::ptr_eq(before, &old) && Arc::ptr_eq(now, &new)
        };
        let (.., news) = match last.take().filter(same) {
            Some(known) => last.insert(known),
            None => last.insert((Arc::clone(&old), Arc::clone(&new), new.news(&old))),
        };
        let news = &*news;
        let all = new.unread != old.unread || new.address != old.address && new.address.is_some();
        let concerned = engine.claims.readers(&link.place, |queues, scaled| {
            all || scaled || queues.iter().any(|queue| is_among(queue, news))
        });
        tell(engine, concerned, Duration::ZERO);
    }
}

/// Says in the log whether a broker can be read, where that has changed.
fn log_change(link: &Link, new: &Broker, old: &Broker) {
    let kind = |unread: &Option<Unread>| unread.as_ref().map(std::mem::discriminant);
    if kind(&new.unread) == kind(&old.unread) {
        return;
    }
    let Place { namespace, broker } = &link.place;
    let secret = &broker.secret_ref.name;
    match &new.unread {
        Some(
            Unread::Broker(why)
            | Unread::Refused(why)
            | Unread::Management(why)
            | Unread::Forbidden(why),
        ) => {
            tracing::warn!(namespace, secret, why, "a broker cannot be read");
        }
        Some(Unread::NotYet) => {}
        None => tracing::info!(namespace, secret, "a broker is read"),
    }
}

/// Whether a queue, or a part of it, is among these.
fn is_among(queue: &str, names: &BTreeSet<String>) -> bool {
    let those = names.range::<str, _>((Bound::Included(queue), Bound::Unbounded));
    let mut those = those.take_while(|name| name.starts_with(queue));
    those.any(|name| name.len() == queue.len() || name.as_bytes()[queue.len()] == b'.')
}

/// Listens and reads until the Secret is another one.
///
/// # Errors
/// Why nothing can be done with the Secret, in a sentence.
async fn session(engine: &Arc<Engine>, link: &Arc<Link>) -> Result<(), String> {
    let place = &link.place;
    let credentials = Credentials::read(engine, place).await?;
    let name = format!("vumi-operator {}", engine.events.identity());
    let secrets = Arc::clone(&credentials.secrets);
    let config = AmqpConfig::of_namespace(secrets, &place.broker, &place.namespace);
    let config = config.with_name(name);
    let access = Access::of(&config, &place.broker, &credentials.secrets).map_err(|_| {
        let secret = &place.broker.secret_ref.name;
        format!("the Secret {secret} does not say where the broker is: it needs connection_string, or host, username and password")
    })?;
    match Member::enter(engine, link, access) {
        Entry::First(member) => serve(engine, link, &credentials, config, &member).await,
        Entry::Beside(member) => beside(engine, link, &credentials, &member).await,
    }
    Ok(())
}

/// The session of another link serves this one too, until that ends or the Secret is another one.
async fn beside(engine: &Engine, link: &Link, credentials: &Credentials, member: &Member) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = member.ended() => return,
            _ = tick.tick() => {}
        }
        if credentials.are_old(engine, &link.place) {
            return;
        }
    }
}

/// Listens and reads for all links of a session, until the Secret of its first one is another.
async fn serve(
    engine: &Arc<Engine>,
    link: &Arc<Link>,
    credentials: &Credentials,
    config: AmqpConfig,
    member: &Member,
) {
    let (place, shared) = (&link.place, member.shared());
    let identity = shared.access().identity();
    let address = format!("{}:{}", identity.host, identity.port);
    let shown = identity.shown();
    let secret = format!("{}/{}", place.namespace, place.broker.secret_ref.name);
    let management = place.broker.management.as_ref();
    let management = management.map_or("", |management| management.url.as_str());
    let rows = BrokerRows::new(&engine.metrics, &shown, management, &secret);
    let management = Management::new(&config, &place.broker, &credentials.secrets);
    let mut management = management.map_err(Unread::Management);
    let broker = AmqpBroker::connect(config);
    let mut state = broker.link();
    let mut connectors = engine.brokers.connectors.subscribe();
    let mut ears = Ears::new(Arc::clone(engine), Arc::clone(shared), Arc::clone(&broker));
    ears.hear(&shared.connectors()).await;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut next, mut count) = (Instant::now(), Count::default());
    let (mut refused_since, mut before) = (None, Duration::ZERO);
    loop {
        let in_time = tokio::select! {
            _ = tick.tick() => true,
            Ok(()) = state.changed() => false,
            Ok(()) = connectors.changed() => {
                ears.hear(&shared.connectors()).await;
                continue;
            }
        };
        if credentials.are_old(engine, place) {
            tracing::info!(
                broker = shown,
                "the broker's Secret has changed: connecting anew"
            );
            break;
        }
        let links = shared.links();
        let reading = |broker: Broker| {
            Arc::new(Broker {
                address: Some(shown.clone()),
                ..broker
            })
        };
        let up = state.borrow_and_update().clone();
        match up {
            LinkState::Connecting { error: None, .. } => continue,
            LinkState::Connecting {
                error: Some(error),
                refused,
                ..
            } => {
                links.iter().for_each(|link| link.deaf());
                // An attempt is made every few seconds, and it fails in one of several ways.
                let said = matches!(
                    link.broker().0.unread,
                    Some(Unread::Broker(_) | Unread::Refused(_))
                );
                if in_time || !said {
                    rows.read("connection", None);
                    took(engine, &links, |link| {
                        let secret = &link.place.broker.secret_ref.name;
                        reading(unread(away(&shown, secret, &error, refused)))
                    });
                }
                let since = *refused_since.get_or_insert_with(Instant::now);
                // The Secret may be another one, of which nobody has told yet.
                if refused && since.elapsed() > PAUSE {
                    break;
                }
                continue;
            }
            LinkState::Up { .. } | LinkState::Blocked(_) => refused_since = None,
            LinkState::Closed => break,
        }
        if let Some(cluster) = broker.cluster() {
            for link in &links {
                let about = (cluster.clone(), address.clone(), identity.vhost.clone());
                identify(engine, link, broker.as_ref(), about, &ears).await;
            }
        }
        if !engine.api.gate().leads() {
            // What was read before says nothing once this operator leads again.
            for link in &links {
                if link.broker().0.unread != Some(Unread::NotYet) {
                    link.read(reading(unread(Unread::NotYet)));
                }
            }
            continue;
        }
        if Instant::now() < next {
            continue;
        }
        let began = Instant::now();
        let read = match &mut management {
            Ok(management) => management.queues().await,
            Err(why) => Err(why.clone()),
        };
        let lasted = began.elapsed();
        next = Instant::now() + pause(lasted, before);
        before = lasted;
        let outcome = match &read {
            Ok(_) => "ok",
            Err(Unread::Forbidden(_)) => "forbidden",
            Err(_) => "management",
        };
        rows.read(outcome, Some(began.elapsed()));
        let said = match read {
            Ok(queues) => Broker {
                queues,
                ..Broker::default()
            },
            Err(why) => {
                let names = links
                    .iter()
                    .flat_map(|link| engine.claims.queues(&link.place));
                count.renew(broker.as_ref(), names.collect()).await;
                Broker {
                    unread: Some(why),
                    queues: count.queues.clone(),
                    ..Broker::default()
                }
            }
        };
        let said = reading(said);
        took(engine, &links, |_| Arc::clone(&said));
    }
    broker.close(Duration::from_secs(1)).await;
}

/// How long the next reading waits at least, after one that took so long, and the one before it. A large broker is slow twice; one that
/// was busy for a moment must not hold up what waits for news of all resources.
fn pause(lasted: Duration, before: Duration) -> Duration {
    (lasted.min(before) * SHARE).max(EVERY / 2)
}

/// Which broker is away, why, and what to do. No credentials stand in it.
fn away(broker: &str, secret: &str, error: &str, refused: bool) -> Unread {
    match refused {
        true => Unread::Refused(format!(
            "the broker {broker} refuses us: {error}; correct user, password and virtual host in the Secret {secret}, which is read again by itself"
        )),
        false => Unread::Broker(format!(
            "the broker {broker} cannot be reached: {error}; see that it runs and listens there, and that the Secret {secret} names the right host; work goes on by itself"
        )),
    }
}

/// Consumers of queues, as the broker itself says: for where depths cannot be read.
#[derive(Default)]
struct Count {
    queues: BTreeMap<String, Queue>,
    /// When all of them were asked for.
    whole: Option<Instant>,
}

impl Count {
    /// Asks for queues without known consumers, which may have some by now, and every [`COUNT`] for all.
    async fn renew(&mut self, broker: &dyn vumi_core::broker::Broker, names: BTreeSet<String>) {
        self.queues.retain(|name, _| names.contains(name));
        if self.whole.is_none_or(|at| at.elapsed() >= COUNT) {
            self.whole = Some(Instant::now());
            self.ask(broker, names.iter()).await;
            return;
        }
        let read = |name: &&String| {
            let queue = self.queues.get(*name);
            queue.is_some_and(|queue| queue.consumers.is_some_and(|some| some > 0))
        };
        let idle: Vec<&String> = names.iter().filter(|name| !read(name)).collect();
        self.ask(broker, idle.into_iter()).await;
    }

    async fn ask(
        &mut self,
        broker: &dyn vumi_core::broker::Broker,
        names: impl Iterator<Item = &String>,
    ) {
        let mut failed = false;
        for name in names {
            match broker.depth(name).await {
                Ok(depth) => {
                    // Nobody reads what is not there.
                    let (ready, consumers) = depth.map_or((0, 0), |d| (d.ready, d.consumers));
                    let queue = Queue {
                        ready: ready.into(),
                        consumers: Some(consumers),
                        ..Queue::default()
                    };
                    self.queues.insert(name.clone(), queue);
                }
                // One queue may be none of ours; after a second one it is the connection.
                Err(_) if failed => return,
                Err(_) => failed = true,
            }
        }
    }
}

/// What is known of the Secrets of a link.
struct Credentials {
    secrets: Arc<Secrets>,
    /// Name and revision of each.
    revisions: Vec<(String, String)>,
}

impl Credentials {
    async fn read(engine: &Engine, place: &Place) -> Result<Self, String> {
        let (mut documents, mut revisions) = (BTreeMap::new(), Vec::new());
        for name in place.broker.secrets().map(str::to_owned) {
            let found = engine.secrets.values(&place.namespace, &name).await;
            let found =
                found.map_err(|error| format!("the Secret {name} cannot be read: {error}"))?;
            let (revision, values) =
                found.ok_or_else(|| format!("the Secret {name} is not there"))?;
            revisions.push((name.clone(), revision));
            documents.insert(name, values);
        }
        Ok(Self {
            secrets: Arc::new(Secrets::new(documents, None)),
            revisions,
        })
    }

    /// Whether one of them is known to be another one by now.
    fn are_old(&self, engine: &Engine, place: &Place) -> bool {
        self.revisions.iter().any(|(name, revision)| {
            let known = engine.secrets.revision(&place.namespace, name);
            known.is_some_and(|known| known != *revision)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_away_is_named_with_the_cure() {
        let said = away("rabbit:5672/campaign", "vumi-broker", "no route", false);
        let text = "the broker rabbit:5672/campaign cannot be reached: no route; see that it runs and listens there, and that the Secret vumi-broker names the right host; work goes on by itself";
        assert_eq!(said, Unread::Broker(text.into()));
        let said = away("rabbit:5672/", "vumi-broker", "ACCESS_REFUSED", true);
        assert!(
            matches!(said, Unread::Refused(text) if text.contains("refuses us") && text.contains("vumi-broker"))
        );
    }

    #[test]
    fn one_slow_answer_is_no_large_broker() {
        let [fast, slow] = [20, 5_000].map(Duration::from_millis);
        let pauses = [(fast, fast), (slow, fast), (fast, slow), (slow, slow)];
        let pauses = pauses.map(|(lasted, before)| pause(lasted, before).as_millis());
        assert_eq!(pauses, [2_500, 2_500, 2_500, 50_000]);
    }

    #[test]
    fn parts_of_a_queue_are_told_from_other_queues() {
        let names = BTreeSet::from(["sms.inbound.p1".to_owned(), "sms.outboundx".to_owned()]);
        assert!(is_among("sms.inbound", &names));
        assert!(!is_among("sms.outbound", &names));
        assert!(is_among("sms.outboundx", &names));
    }
}

//! Which broker an address leads to (K18).

use super::ears::Ears;
use super::identified;
use super::link::{Known, Link};
use crate::engine::Engine;
use vumi_core::broker::{Broker, LinkState};
use vumi_plan::BrokerIdentity;

/// Finds out which broker it is among those that call themselves the same. Names of clusters are often the same: two
/// addresses lead to one broker only where one sees a queue that the other has made (K18).
pub(super) async fn identify(
    engine: &Engine,
    link: &Link,
    broker: &dyn Broker,
    (cluster, address, vhost): (String, String, String),
    ears: &Ears,
) {
    let (queue, listening) = ears.first();
    let known = link.known();
    let same = known.as_ref().filter(|known| {
        known.cluster == cluster && known.address == address && known.identity.vhost == vhost
    });
    if let Some(known) = same {
        if known.queue != queue || known.listening != listening {
            link.know(Known {
                queue,
                listening,
                ..known.clone()
            });
        }
        return;
    }
    let _turn = engine.brokers.identifying.lock().await;
    let mut identity = None;
    for other in engine.brokers.all() {
        let Some(other) = other
            .known()
            .filter(|_| !std::ptr::eq(other.as_ref(), link))
        else {
            continue;
        };
        if other.cluster != cluster || other.identity.vhost != vhost || identity.is_some() {
            continue;
        }
        if other.address == address {
            identity = Some(other.identity);
        } else if !other.listening {
            // It cannot be told now.
            return;
        } else {
            match broker.depth(&other.queue).await {
                // It is not there.
                Ok(None) => {}
                Ok(Some(_)) => identity = Some(other.identity),
                // It is there and not for us, unless the broker is away.
                Err(_) => match *broker.link().borrow() {
                    LinkState::Up { .. } => identity = Some(other.identity),
                    _ => return,
                },
            }
        }
    }
    let identity = identity.unwrap_or_else(|| BrokerIdentity {
        cluster: format!("{cluster} at {address}"),
        vhost,
    });
    link.know(Known {
        identity,
        cluster,
        address,
        queue,
        listening,
    });
    identified(engine);
}

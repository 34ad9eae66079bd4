//! Orders for batches: listed, lifted, and refused where they could not be obeyed.

use super::*;

async fn give(
    world: &World,
    batch: &str,
    account: &str,
    order: Option<Order>,
) -> Result<(), WorkError> {
    let ask = Ask::BatchOrder {
        batch: batch.into(),
        account: account.into(),
        order,
    };
    answer(&world.reach, ask).await.map(drop)
}

#[tokio::test]
async fn an_order_before_the_first_message_is_listed_and_lifted() {
    let world = World::new();
    give(&world, "spring", "sms", Some(Order::Pause))
        .await
        .unwrap();
    let list = Ask::BatchList {
        batch: Some("spring".into()),
        account: None,
    };
    let listed: Vec<batch_desk::Summary> = world.ask(list.clone()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].account.as_str(), listed[0].open()), ("sms", 0));
    assert_eq!(listed[0].order, Some(Order::Pause));
    give(&world, "spring", "sms", None).await.unwrap();
    assert_eq!(world.ask::<Vec<batch_desk::Summary>>(list).await, []);
}

#[tokio::test]
async fn orders_that_could_not_be_obeyed_are_refused() {
    use vumi_api::shared::Class;
    let mut world = World::new();
    for queue in ["backup.outbound", "third.outbound"] {
        let queue = QueueSpec::Data(queue.into());
        world.broker.declare(&queue).await.unwrap();
    }
    let answers = Consumed {
        only_answers: true,
        ..world.reach.queues[QUEUE].clone()
    };
    let queues = &mut world.reach.queues;
    queues.insert("api.outbound".into(), answers);
    let reroute = |to: &str| Order::Reroute(to.into());
    let long = "x".repeat(300);
    for (batch, account, order, why) in [
        ("", "sms", Order::Pause, "1 to 128 characters"),
        (long.as_str(), "sms", Order::Pause, "this one has 300"),
        ("spring", "", Order::Pause, "no name of a transport"),
        (
            "spring",
            long.as_str(),
            Order::Pause,
            "no name of a transport",
        ),
        (
            "spring",
            "smss",
            Order::Cancel,
            "there is no queue smss.outbound; there are: api, sms; did you mean sms?",
        ),
        ("spring", "sms", reroute("sms"), "is with sms already"),
        (
            "spring",
            "sms",
            reroute("api"),
            "can send nothing of its own",
        ),
        (
            "spring",
            "sms",
            reroute("bckup"),
            "no transport bckup has ever run here",
        ),
        ("spring", "sms", reroute("SMS 2"), "no name of a transport"),
        (
            "spring",
            "sms",
            Order::Reclass(Class::Bulk),
            "has no classes",
        ),
        (
            "spring",
            "backup",
            Order::Reclass(Class::Bulk),
            "has no classes",
        ),
    ] {
        let error = give(&world, batch, account, Some(order)).await.unwrap_err();
        assert_eq!(error.code, codes::BATCH_ORDER);
        assert!(error.text.contains(why), "{}", error.text);
    }
    assert!(world.store.all_orders().await.unwrap().is_empty());
    // Round in a circle.
    give(&world, "spring", "backup", Some(reroute("third")))
        .await
        .unwrap();
    give(&world, "spring", "third", Some(reroute("sms")))
        .await
        .unwrap();
    let error = give(&world, "spring", "sms", Some(reroute("backup")))
        .await
        .unwrap_err();
    assert!(
        error.text.contains("third gives the same batch back"),
        "{}",
        error.text
    );
    give(&world, "autumn", "sms", Some(reroute("backup")))
        .await
        .unwrap();
    // A transport with classes, seen by its process, and by its queues alone.
    for known in [Some(true), None] {
        world.reach.queues.get_mut(QUEUE).unwrap().classes = known;
        for queue in ["sms.outbound", "sms.outbound.bulk"] {
            let queue = QueueSpec::Data(queue.into());
            world.broker.declare(&queue).await.unwrap();
        }
        give(&world, "spring", "sms", Some(Order::Reclass(Class::Bulk)))
            .await
            .unwrap();
    }
    // An order that is there already can be lifted, whatever it says.
    world
        .store
        .set_order("gone", &long[..200], Some(&Order::Pause))
        .await
        .unwrap();
    give(&world, &long[..200], "gone", None).await.unwrap();
}

/// What stands behind the first message of a user has no row yet, and so is in no batch's count; it is said how many there are.
#[tokio::test]
async fn what_waits_behind_another_one_is_among_what_is_not_counted_yet() {
    let world = World::new();
    let queue = QueueSpec::Data(QUEUE.into());
    world.broker.declare(&queue).await.unwrap();
    let unbegun = async || {
        let account = "sms".to_owned();
        world.ask::<Option<u64>>(Ask::Unbegun { account }).await
    };
    assert_eq!(unbegun().await, Some(0));
    for id in ["first", "second", "third"] {
        world.wait(id, USER, Reason::Held).await;
    }
    world.wait("alone", "+27820002222", Reason::Held).await;
    assert_eq!(unbegun().await, Some(2));
}

//! Names that are mistyped: what there is instead is said.

use super::*;

#[tokio::test]
async fn a_name_with_a_slip_is_told_what_there_is() {
    let world = World::new();
    world.row("m", &[RowState::Sent], &[]).await;
    let slip = || Some("smss.outbound".to_owned());
    for ask in [
        list(slip().as_deref(), all()),
        Ask::JournalCount {
            queue: slip().unwrap(),
            filter: all(),
        },
        Ask::LedgerOverdue {
            account: Some("smss".into()),
            limit: 1,
        },
    ] {
        let error = answer(&world.reach, ask).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BadInput);
        assert!(error.text.contains("there are: sms"), "{error}");
    }
}

/// Where no message fits because of a slip, the name is said, and what there is.
#[tokio::test]
async fn a_slip_in_what_is_sent_again_is_told_what_there_is() {
    let world = World::new();
    let row = world.row("f", &[RowState::Sending], &[]).await;
    let change = Change {
        step: Step {
            code: "0x0b".into(),
            class: "recipient".into(),
            ..step(2_000, "transport/sms", "failed", &[])
        },
        ..change(RowState::Failed, 2_000, &[])
    };
    let mut failed = row.after(change).unwrap();
    failed.batch = Some("spring".into());
    let put = world.store.put(&failed, Some(row.version), HOUR).await;
    assert_eq!(put.unwrap(), Put::Stored);
    let ask = |chosen: Chosen| Ask::LedgerResendable {
        chosen,
        force: false,
    };
    let all = Chosen::default();
    let listed: Vec<resend::Summary> = world.ask(ask(all.clone())).await;
    assert_eq!(listed.len(), 1);
    let named = |name: &str| Some(name.to_owned());
    for (chosen, why) in [
        (
            Chosen {
                account: named("smss"),
                ..all.clone()
            },
            "no transport \"smss\" here; there are: sms; did you mean sms?",
        ),
        (
            Chosen {
                batch: named("sprong"),
                ..all.clone()
            },
            "no batch \"sprong\" here; there are: spring; did you mean spring?",
        ),
        (
            Chosen {
                class: named("credit"),
                ..all.clone()
            },
            "no failure class \"credit\" here; there are: recipient",
        ),
        (
            Chosen {
                code: named("0x0c"),
                class: named("recipient"),
                ..all.clone()
            },
            "no code \"0x0c\" here; there are: 0x0b",
        ),
    ] {
        let error = answer(&world.reach, ask(chosen)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::BadInput);
        assert!(error.text.starts_with(why), "{error}");
    }
    // Every name is of something: it is only that nothing fits.
    let later = Chosen {
        account: named("sms"),
        code: named("0x0b"),
        since: Some(u64::MAX),
        ..all
    };
    assert_eq!(world.ask::<Vec<resend::Summary>>(ask(later)).await, []);
}

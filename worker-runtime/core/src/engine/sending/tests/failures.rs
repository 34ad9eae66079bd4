//! What a failure worker of Vumi hears.

use super::*;

/// Its peer refuses what it delivered.
struct Contradicted {
    /// Another replica, which gets the receipt before the answer is there.
    other: Arc<Sending>,
    /// Whether there is one.
    receipt: bool,
    /// Whether the refusal is a nack, or an error.
    nacks: bool,
}

#[async_trait]
impl Worker for Contradicted {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let id = input.to_deliver()?.message_id().to_owned();
        if self.receipt {
            let receipt = Receipt {
                message_id: Some(id.clone()),
                remote_id: Some("remote".into()),
                outcome: ReceiptOutcome::Delivered,
            };
            self.other.receipt(receipt, &|| false).await.unwrap();
        }
        let (code, text) = (codes::REPLY_FIELDS, "no");
        if !self.nacks {
            return Err(WorkError::new(ErrorClass::RemotePermanent, code, text));
        }
        let refusal = Refusal::new(FailureClass::Content, code, text, Actor::Campaign);
        let mut nack = Event::nack(&id, &refusal.fate(input.attempt));
        nack.set_transport_name("t");
        Ok(vec![Output::new(Port::new("t", Flow::Event), nack)])
    }
}

#[test]
fn a_failure_worker_of_vumi_hears_of_no_failure_that_a_receipt_contradicted_before() {
    in_simulated_time(async {
        for (nacks, receipt) in [(true, false), (true, true), (false, false), (false, true)] {
            let store = simulated_store();
            let bench = Bench::new(&store, json!({}), true);
            let failures = QueueSpec::Data("t.failures".into());
            bench.broker.declare(&failures).await.unwrap();
            let life = Life::until(0);
            let (other, _) = bench.process(&life, 0, 0);
            let worker = Arc::new(Contradicted {
                other,
                receipt,
                nacks,
            });
            let (_, mut desk) = bench.desk(&life, Some(Arc::clone(&store)), worker);
            desk.legacy_failures = true;
            let message = message();
            let finished = Arc::new(desk).work(delivery(&message, false)).await;
            assert_eq!(finished.verdict, Verdict::Done);
            let expected = match receipt {
                true => RowState::Delivered,
                false => RowState::Failed,
            };
            assert_eq!(bench.row(&message).await.state, expected);
            let heard = bench.read("t.failures").await.len();
            assert_eq!(heard, usize::from(!receipt), "nacks: {nacks}");
        }
    });
}

//! Every dotted error code, registered once with a sentence that says what to do. `vumi explain CODE` and the
//! reference pages print this table.

/// A registered code such as `park.bad_json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code {
    /// The dotted name, also the label in metrics and parked messages.
    pub name: &'static str,
    /// What happened, in one sentence.
    pub meaning: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

impl Code {
    /// The code of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|code| code.name == name).copied()
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! codes {
    ($( $konst:ident = $name:literal, $meaning:literal, $fix:literal; )*) => {
        $(
            #[doc = $meaning]
            pub const $konst: Code = Code { name: $name, meaning: $meaning, fix: $fix };
        )*

        /// All codes, in the order of this file.
        pub const ALL: &[Code] = &[$($konst),*];
    };
}

codes! {
    MESSAGE_NOT_JSON = "message.not_json", "The body of a message is not a JSON object.",
        "Find the producer that writes to this queue; look at the body with `vumi parked show`.";
    MESSAGE_INVALID = "message.invalid", "A message lacks a required field or holds an impossible value.",
        "Correct that field at the producer, then `vumi parked requeue` or `drop`.";
    MESSAGE_TOO_LARGE = "message.too_large", "A message is larger or nested deeper than is accepted.",
        "Send a smaller message; the limits are 1 MiB and 64 levels.";
    MESSAGE_VERSION = "message.version", "A message has a version other than 20110921.",
        "Only version 20110921 exists on the wire; correct the producer.";
    BUG_PANIC = "bug.panic", "Handling the message panicked three times.",
        "Report the log lines with this message id; requeue it after an upgrade.";
    BUG_ENDED = "bug.ended", "A loop of a worker ended or panicked although nobody stopped it; it is started again.",
        "Report the log lines around it.";
    RETRY_NO_STORE = "retry.no_store", "Retries reached the hold limit and no state store is configured to keep the message longer.",
        "Cure what made the attempts fail, then `vumi parked requeue`.";
    RETRY_EXPIRED = "retry.expired", "A message was retried as long as retry.maxAge allows.",
        "Cure the last error and send again, or raise retry.maxAge.";
    RETRY_EXHAUSTED = "retry.exhausted", "All attempts failed.",
        "Cure the last error and send again.";
    RETRY_EXTERNAL = "retry.external", "Vumi's failure worker was given the message and is to give it back for the next attempt.",
        "Nothing if it does. If the row is overdue, see that the failure worker runs and which longest delay it has; `vumi ledger resend --force` sends the message without it, `vumi ledger close --force` ends it.";
    BUG_CRASH_LOOP = "bug.crash_loop", "The process died three times while it worked on this message.",
        "Look at the log and at memory limits before each restart; requeue it after an upgrade.";
    FATE_UNKNOWN = "fate.unknown", "The message was sent and the answer was lost, so nobody knows whether the peer has it.",
        "Ask the provider; `vumi ledger resend` sends it again, at the risk of a second copy. `onUnknown` decides what is done without a person.";
    FATE_SENT_AGAIN = "fate.sent_again", "The message is sent again although the peer may have it: `onUnknown` or a person said so.",
        "Nothing; the user may get it twice. Choose `onUnknown: {policy: fail}` if that is worse than a lost message.";
    LEDGER_RESENT = "ledger.resent", "A person had the message sent again.",
        "Nothing; `vumi why` shows both ends.";
    LEDGER_CLOSED = "ledger.closed", "A person closed the row of a message that was nowhere any more.",
        "Nothing; whoever sent the message was told that it was not sent. Find out what removed it: a purged queue, a lost disk.";
    RECEIPT_MISSING = "receipt.missing", "The peer took the message and sent no receipt in all that time.",
        "Ask the provider whether receipts are switched on for the account.";
    RECEIPT_UNMATCHED = "receipt.unmatched", "A receipt names a message by the peer's id, and no message of this transport has that id.",
        "Nothing if it passes: a receipt may be faster than the answer. Else another system sends with the same account, or the row is over (retention.ledger).";
    REPLY_FORWARDED = "reply.forwarded", "The reply was handed to the replica that holds the request.",
        "Nothing; if that replica ends, the sender is told.";
    PARK_AGAIN = "park.again", "The message was set aside before and came again.",
        "There may be two copies of it: requeue one and drop the other.";
    DEDUPE_PENDING = "dedupe.pending", "The same message of the provider is being taken over by somebody else.",
        "Nothing; the provider tries again and gets the first answer.";
    ROUTE_NONE = "route.none", "No route for this message.",
        "Add the missing row to the dispatcher's routes.";
    ROUTE_NO_QUEUE = "route.no_queue", "The target queue does not exist and could not be declared.",
        "Check the connector name and the broker's permissions.";
    BACKLOG_FULL = "backlog.full", "Too many messages wait in the target queue.",
        "Start or scale the consumer of that queue, or raise backlogLimit.";
    BROKER_UNREACHABLE = "broker.unreachable", "The broker cannot be reached.",
        "Check that it runs and that host, port and network allow the connection.";
    BROKER_REFUSED = "broker.refused", "The broker refused the credentials or the virtual host.",
        "Check username, password and vhost in the broker's Secret.";
    BROKER_QUEUE_TYPE = "broker.queue_type_mismatch", "A queue exists with other properties than ours.",
        "A virtual host serves one broker profile, `vumi` or `quorum`: give each its own, or move the queue's messages and delete it.";
    BROKER_QUEUE_DOWN = "broker.queue_unavailable", "A queue cannot be used because the broker's node that has it is away.",
        "Start that node again; nothing in the queue is lost. Queues of profile quorum go on without it.";
    BROKER_TOO_OLD = "broker.too_old", "The broker is older than its profile needs.",
        "Profile quorum needs RabbitMQ 4.0 or newer; upgrade, or use profile vumi.";
    BROKER_FENCE = "broker.fence_not_honoured", "The broker accepted a second consumer beside an exclusive one.",
        "The queue is a quorum queue; use a vhost whose default queue type is classic.";
    BROKER_FOREIGN = "broker.foreign_consumer", "The queue is held by a consumer that is not ours.",
        "Stop the other program that reads this queue; while an old worker and this one must both run, set `ordering: {mode: none}` here.";
    BROKER_STATE_IN_USE = "broker.state_in_use", "Another process uses the state folder of the embedded broker.",
        "Stop that process, or give this one another --state folder.";
    BROKER_STATE = "broker.state_unusable", "The state folder of the embedded broker cannot be read or written.",
        "Let this user write there, free space on its disk, or name another folder with --state. A checksum: files were damaged from outside; put back a backup, or move the folder away and begin anew without its messages.";
    STATE_NONE = "state.none", "The worker needs a state store and has none.",
        "Name one in `spec.state`, or create the Secret vumi-redis in its namespace.";
    STATE_NOT_DURABLE = "state.not_durable", "What the worker keeps in its state store may be lost in a crash.",
        "Let Redis write an append-only file (appendonly yes), or give `vumi run` a --state folder; `allowVolatileState: true` accepts the risk.";
    SCHEDULE_INVALID = "schedule.invalid", "The schedule of a message cannot be read, or never comes true.",
        "Correct that field in the application that sent it.";
    BATCH_CANCELLED = "batch.cancelled", "The message was not sent because its batch was cancelled.",
        "Nothing: somebody decided it. `vumi batch list` shows the orders in force.";
    BATCH_ORDER = "batch.order", "An order for a batch that could not be obeyed was not given.",
        "`vumi batch list` shows batches, their transports and the orders in force.";
    BATCH_NO_TARGET = "batch.no_target", "A batch is rerouted to a transport whose queue does not exist.",
        "Run that transport, or give another one with `vumi batch reroute`; the messages wait.";
    SCHEDULE_NO_STORE = "schedule.no_store", "A message is to be sent later, and there is no state store to keep it until then.",
        "Configure a state store, then `vumi parked requeue`.";
    JOURNAL_DROPPED = "journal.dropped", "A person dropped a message that waited in the journal.",
        "Nothing; the log line names the message.";
    JOURNAL_EXPIRED = "journal.expired", "A message waited in the journal as long as `retention.journal` allows.",
        "Release what waits sooner (`vumi journal list`, `vumi batch list`), or keep it longer.";
    PARTITIONS_BUSY = "partitions.busy", "Somebody still works on what waits in the former parts of a queue that is divided anew.",
        "Nothing, if it passes: what is claimed is free a minute after its replica has died. Else look for a replica of the former division that still runs.";
    STATE_IN_USE = "state.in_use", "Another process uses the folder of the embedded state store.",
        "Stop that process, or give this one another folder; an embedded store has one owner.";
    STATE_UNUSABLE = "state.unusable", "The folder of the embedded state store cannot be read or written.",
        "Let this user write there, free space on its disk (work then goes on), or name another folder with --state. A checksum or another version: put back a backup, or move the folder away and begin anew without what it holds.";
    STATE_UNREACHABLE = "state.unreachable", "The state store cannot be reached.",
        "Check that Redis runs as a master and that host, port, sentinels, TLS and network allow the connection.";
    STATE_REFUSED = "state.refused", "Redis refused the credentials or a command.",
        "Check username and password in the Secret, and that the user may use the keys below the prefix, scripts and INFO.";
    STATE_FULL = "state.full", "Redis takes no writes: its memory or its disk is full, or too few replicas follow it.",
        "Give it more memory or disk, or start its replicas; work goes on by itself.";
    STATE_CLUSTER = "state.cluster", "This Redis runs in Cluster mode.",
        "Use a single Redis or one with Sentinel: Cluster cannot keep together what one operation changes.";
    STATE_VERSION = "state.version", "This Redis is too old.",
        "Use version 6.2 or later.";
    STATE_UNREADABLE = "state.unreadable", "The state store holds or answers something that cannot be read.",
        "A later version may have written it: let all replicas have the same one, then `vumi parked requeue` what was set aside. Somebody else may use the same keys: give each system a keyPrefix of its own. Otherwise report it.";
    STATE_CONTENDED = "state.contended", "Others changed the same entry of the state store again and again at the same moment.",
        "Nothing; it is tried again. If it goes on, divide the users over several applications.";
    HOLDER_GONE = "reply.holder_gone", "The replica that held the request is gone.",
        "The user got no answer; they will have to ask again.";
    SESSION_CLOSED = "reply.session_closed", "The session or request that the reply belongs to has ended.",
        "Reply faster than the network's deadline.";
    REPLY_NOT_EXPECTED = "reply.not_expected", "The transport answers its peer at once and cannot deliver replies.",
        "Set replyExpected: true if callers wait for the reply; else the application must not reply on this transport.";
    REPLY_NO_CLIENT = "reply.no_client", "No client is connected under the address of the message.",
        "The user has left; reply to the message that came from the connection, not to a stored address.";
    REPLY_FIELDS = "reply.missing_fields", "An outbound message lacks fields that this transport needs.",
        "Correct the application that sent it.";
    NUMBER_UNCLEAR = "number.unclear", "The recipient's number cannot be read by any numbering plan, or in two ways, so that nobody knows whom it would reach.",
        "Write numbers with + and the country code, as in +27820000001; look at numbersOf, send.numbersAs and unclearNumbers.";
    PEER_REFUSED = "peer.refused", "The network refused the message for good.",
        "Correct the message, or ask the provider about its code.";
    ERROR_TABLE = "peer.error_table", "The file with a provider's error codes is wrong.",
        "Correct that code in the file beside the transport.";
    PEER_THROTTLED = "peer.throttled", "The network asks to slow down.",
        "Nothing: the message is tried again. If it lasts, set rateLimit to what the provider allows.";
    PEER_TIMEOUT = "peer.timeout", "The network did not answer in time; whether it has the message is not known.",
        "See onUnknown; ask the provider if it happens often.";
    PEER_UNREACHABLE = "peer.unreachable", "The provider cannot be reached; it has not got the message.",
        "Check URL, DNS, TLS and network; the message is tried again.";
    PEER_CREDENTIALS = "peer.credentials", "The provider refuses our credentials.",
        "Correct them in the Secret: the message is tried again, and the new ones take effect without a restart.";
    RELAY_REFUSED = "relay.refused", "The endpoint refused the message for good.",
        "Correct the URL, or the endpoint; then `vumi parked requeue` delivers it.";
    RELAY_REDIRECTED = "relay.redirected", "The endpoint answered with a redirect, and redirects are not followed.",
        "Write the address that it redirects to as the URL; then `vumi parked requeue` delivers it.";
    RELAY_REPLY = "relay.reply_unusable", "The endpoint took the message, and its reply cannot be sent: it is no UTF-8, or as large as client.maxAnswer or larger.",
        "Correct the endpoint, or raise client.maxAnswer; then `vumi parked requeue` asks it again.";
    PEER_FAILED = "peer.failed", "The provider failed and did not take the message.",
        "Nothing: the message is tried again. Ask the provider if it lasts.";
    TEMPLATE_FAILED = "template.failed", "A template of the manifest could not be filled in with what this message or request holds.",
        "Let the template stand such values too. The message was refused for good, or the request answered with 400; others are not concerned.";
    LISTEN_FAILED = "listen.failed", "The address to listen on cannot be opened.",
        "Stop the program that uses the port (`ss -ltnp` shows it), or write another port; a host must be an address of this machine.";
    SECRET_MISSING = "secret.missing", "A referenced Secret or key does not exist.",
        "Create the Secret, or add the key; in a process of your own, put a Secret document beside the manifests, or give --secrets DIR with DIR/<name>/<key>.";
    SECRET_EMPTY = "secret.empty", "A secret is empty: with it nobody would be asked who they are, or everybody could sign.",
        "Write a value into that key of the Secret; it takes effect within a second. To ask for nothing, leave the field out of the manifest.";
    CONTROL_SOCKET = "control.socket", "The control socket of a running process cannot be used.",
        "Start `vumi run`, or name its socket with --socket; only the user who started it may use it.";
    CONTROL_REQUEST = "control.request", "Something was asked for that is not there, or that cannot be read.",
        "`vumi status` shows the workers here and their queues.";
    CONTROL_STARTING = "control.starting", "A process was asked that is still starting: its state stores and queues are not open yet.",
        "Ask again in a moment; `vumi status` says what it waits for.";
    CONFIG_INVALID = "config.invalid", "The manifest is not valid.",
        "Run `vumi lint`, which names file, line and field.";
    CONFIG_ADDRESS = "config.address", "The address of a broker or state store cannot be used.",
        "Write amqp://user:password@host:5672/vhost or redis://user:password@host:6379/db, with s at the end of amqp or redis for TLS, and special letters of a password as %XX.";
    PARKED_FOREIGN = "parked.foreign", "A body in a parking queue has no envelope: it was too large for one, or something else wrote it.",
        "Look at it with `vumi parked show`; requeue it to the queue it was parked beside, or drop it.";
    PARKED_TOO_MANY = "parked.too_many", "Too many messages of this worker were set aside, so it paused.",
        "Look with `vumi parked list`, cure the cause, requeue or drop, then `vumi parked resume`.";
    PARKED_EXPIRED = "parked.expired", "A parked message was removed because `retention.parked` was over.",
        "Nothing; look at parked messages sooner, or keep them longer.";
    PARKED_DROPPED = "parked.dropped", "A person dropped a parked message for good.",
        "Nothing; the log line names the message.";
}

//! Bad manifests, one mistake each: refused offline with a finding at the right field, and (but for the last group) by a
//! real API server. Used by the tests of the reader here and by the test against the API server.

/// One bad manifest.
pub struct Bad {
    /// Kind of the resource.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: &'static str,
    /// The text under `spec:`.
    pub spec: &'static str,
    /// Code of the finding.
    pub code: &'static str,
    /// Path of the finding.
    pub path: &'static str,
    /// Part of the finding's text. For a CEL rule, the API server says it as well.
    pub says: &'static str,
}

impl Bad {
    /// The manifest as a file.
    pub fn manifest(&self) -> String {
        let spec: String = self
            .spec
            .lines()
            .map(|line| format!("  {line}\n"))
            .collect();
        format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: {}\nmetadata:\n  name: {}\nspec:\n{spec}",
            self.kind, self.name
        )
    }
}

const fn transport(
    spec: &'static str,
    code: &'static str,
    path: &'static str,
    says: &'static str,
) -> Bad {
    Bad {
        kind: "Transport",
        name: "bad",
        spec,
        code,
        path,
        says,
    }
}

const fn other(
    kind: &'static str,
    spec: &'static str,
    code: &'static str,
    path: &'static str,
    says: &'static str,
) -> Bad {
    Bad {
        kind,
        name: "bad",
        spec,
        code,
        path,
        says,
    }
}

const fn named(name: &'static str, says: &'static str) -> Bad {
    Bad {
        kind: "Transport",
        name,
        spec: "telnet: {port: 9010}",
        code: "manifest.rule",
        path: "",
        says,
    }
}

const UNKNOWN: &str = "manifest.unknown_field";
const UNSUPPORTED: &str = "manifest.unsupported";
const MISSING: &str = "manifest.missing_field";
const TYPE: &str = "manifest.wrong_type";
const VALUE: &str = "manifest.wrong_value";
const RULE: &str = "manifest.rule";

/// Refused offline for a cluster, and by the API server.
pub const BAD: &[Bad] = &[
    // Worker types.
    transport(
        "transportName: x",
        RULE,
        "spec",
        "exactly one worker type is needed",
    ),
    transport(
        "telnet: {port: 9010}\nhttpApi: {}\nhttp: {port: 8080}",
        RULE,
        "spec",
        "found: telnet httpApi",
    ),
    other(
        "Application",
        "transportName: x",
        RULE,
        "spec",
        "found: none",
    ),
    other(
        "Application",
        "echo: {}\nstaticReply: {text: x}\ntransportName: x",
        RULE,
        "spec",
        "found: echo staticReply",
    ),
    other("Dispatcher", "holdLimit: 20s", RULE, "spec", "found: none"),
    other(
        "MetricAggregator",
        "{}",
        RULE,
        "",
        "kind MetricAggregator is not supported yet",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nclient: {}",
        RULE,
        "spec.client",
        "client has no effect on this type: it is for httpRelay",
    ),
    // Names that do not exist.
    transport(
        "telnet: {port: 9010}\ntransportname: x",
        UNKNOWN,
        "spec.transportname",
        "did you mean transportName?",
    ),
    transport(
        "telnet: {port: 9010, idle_timeout: 3s}",
        UNKNOWN,
        "spec.telnet.idle_timeout",
        "did you mean idleTimeout?",
    ),
    transport(
        "telnet: {port: 9010, retry: {}}",
        UNKNOWN,
        "spec.telnet.retry",
        "it belongs beside telnet",
    ),
    transport(
        "telnet: {port: 9010}\nretry: {external: true}",
        RULE,
        "spec.retry.external",
        "needs `legacyFailures: true`",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nretry: {external: true}",
        RULE,
        "spec.retry.external",
        "is for transports",
    ),
    transport(
        "telnet: {}\nport: 9010",
        UNKNOWN,
        "spec.port",
        "it belongs inside telnet",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, auth: {username: u, password: {secretKeyRef: {name: s, key: k, nam: x}}}}",
        UNKNOWN,
        "spec.http.auth.password.secretKeyRef.nam",
        "did you mean name?",
    ),
    transport(
        "telnet: {port: 9010}\nmiddleware:\n- {name: l, loging: {}}",
        UNKNOWN,
        "spec.middleware[0].loging",
        "did you mean logging?",
    ),
    other(
        "Application",
        "echo: {loud: true}\ntransportName: x",
        UNKNOWN,
        "spec.echo.loud",
        "echo has no fields",
    ),
    other(
        "Dispatcher",
        "routingTable: {transports: [a], exposed: [b], table: {a: {default: {conector: b}}}}",
        UNKNOWN,
        "spec.routingTable.table.a.default.conector",
        "did you mean connector?",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b]}\ntransportName: x",
        UNKNOWN,
        "spec.transportName",
        "Transport and Application",
    ),
    // Reserved for later versions.
    transport(
        "telnet: {port: 9010}\nplacement: {pool: small}",
        UNSUPPORTED,
        "spec.placement",
        "not supported yet",
    ),
    // Order.
    other(
        "Application",
        "echo: {}\ntransportName: t\nordering: {mode: none, partitions: 8}",
        RULE,
        "spec.ordering.partitions",
        "they need mode: perUser",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: t\nordering: {mode: perUser, partitions: 1}",
        VALUE,
        "spec.ordering.partitions",
        "2",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: t\nordering: {mode: perUser, partitions: 65}",
        VALUE,
        "spec.ordering.partitions",
        "64",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: t\nordering: {mode: none, standby: true}",
        RULE,
        "spec.ordering.standby",
        "where every replica works",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: t\nordering: {mode: perUser, partitions: 8, standby: true}",
        RULE,
        "spec.ordering.standby",
        "no effect beside partitions",
    ),
    // Missing fields.
    transport(
        "telnet: {}",
        MISSING,
        "spec.telnet.port",
        "required, but missing",
    ),
    other(
        "Application",
        "echo: {}",
        MISSING,
        "spec.transportName",
        "required, but missing",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a]}",
        MISSING,
        "spec.simple.exposed",
        "required, but missing",
    ),
    transport(
        "telnet: {port: 9010}\nbroker: {vhost: v}",
        MISSING,
        "spec.broker.secretRef",
        "required, but missing",
    ),
    // Wrong types.
    transport(
        "telnet: {port: \"9010\"}",
        TYPE,
        "spec.telnet.port",
        "remove the quotes",
    ),
    transport(
        "telnet: {port: 9010.5}",
        TYPE,
        "spec.telnet.port",
        "expected a whole number",
    ),
    transport(
        "telnet: {port: [9010]}",
        TYPE,
        "spec.telnet.port",
        "found a list",
    ),
    transport(
        "telnet: {port: 9010, toAddr: 12345}",
        TYPE,
        "spec.telnet.toAddr",
        "put it in quotes",
    ),
    transport("telnet: 9010", TYPE, "spec.telnet", "expected an object"),
    transport(
        "httpApi: {replyExpected: \"true\"}\nhttp: {port: 8080}",
        TYPE,
        "spec.httpApi.replyExpected",
        "expected true or false",
    ),
    transport(
        "telnet: {port: 9010}\nmiddleware: {name: l, logging: {}}",
        TYPE,
        "spec.middleware",
        "a list of one is written",
    ),
    other(
        "Dispatcher",
        "simple: {transports: a, exposed: [b]}",
        TYPE,
        "spec.simple.transports",
        "expected a list",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [1], exposed: [b]}",
        TYPE,
        "spec.simple.transports[0]",
        "expected text",
    ),
    // Words that YAML 1.1 reads otherwise.
    transport(
        "telnet: {port: 9010, toAddr: 0123}",
        "manifest.ambiguous",
        "spec.telnet.toAddr",
        "as a number",
    ),
    transport(
        "telnet: {port: 9010, transportType: on}",
        "manifest.ambiguous",
        "spec.telnet.transportType",
        "as true",
    ),
    other(
        "Application",
        "staticReply: {text: yes}\ntransportName: x",
        "manifest.ambiguous",
        "spec.staticReply.text",
        "put it in quotes",
    ),
    // Values.
    transport(
        "telnet: {port: 80}",
        VALUE,
        "spec.telnet.port",
        "1024 to 65535",
    ),
    transport(
        "telnet: {port: 70000}",
        VALUE,
        "spec.telnet.port",
        "1024 to 65535",
    ),
    transport(
        "telnet: {port: 9464}",
        RULE,
        "spec.telnet.port",
        "the worker's own port",
    ),
    other(
        "Application",
        "telnet: {port: 9010}\ntransportName: x",
        UNKNOWN,
        "spec.telnet",
        "telnet is a worker type of kind Transport; write `kind: Transport`",
    ),
    transport(
        "telnet: {port: 9010, idleTimeout: 72}",
        TYPE,
        "spec.telnet.idleTimeout",
        "add a unit, as in 72s",
    ),
    transport(
        "telnet: {port: 9010, maxLine: 4096}",
        TYPE,
        "spec.telnet.maxLine",
        "in quotes, or a unit as in 64Ki",
    ),
    transport(
        "telnet: {port: 9010, idleTimeout: 1d}",
        VALUE,
        "spec.telnet.idleTimeout",
        "write 24h",
    ),
    transport(
        "telnet: {port: 9010, idleTimeout: \"30\"}",
        VALUE,
        "spec.telnet.idleTimeout",
        "30s",
    ),
    transport(
        "telnet: {port: 9010, idleTimeout: -5s}",
        VALUE,
        "spec.telnet.idleTimeout",
        "not a duration",
    ),
    transport(
        "telnet: {port: 9010}\nholdLimit: 30 s",
        VALUE,
        "spec.holdLimit",
        "not a duration",
    ),
    transport(
        "telnet: {port: 9010}\nholdLimit: 10m1ms",
        RULE,
        "spec.holdLimit",
        "at most 10m: RabbitMQ cuts off",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nholdLimit: 1h",
        RULE,
        "spec.holdLimit",
        "at most 10m: RabbitMQ cuts off",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b]}\nholdLimit: 601s",
        RULE,
        "spec.holdLimit",
        "at most 10m: RabbitMQ cuts off",
    ),
    transport(
        "telnet: {port: 9010, maxLine: 65Ki}",
        RULE,
        "spec.telnet.maxLine",
        "at most 64Ki",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, maxBody: \"1048577\"}",
        RULE,
        "spec.http.maxBody",
        "at most 1Mi: no message is larger",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, maxBody: 2Gi}",
        RULE,
        "spec.http.maxBody",
        "at most 1Mi: no message is larger",
    ),
    transport(
        "telnet: {port: 9010, maxLine: 4KB}",
        VALUE,
        "spec.telnet.maxLine",
        "not a size",
    ),
    transport(
        "telnet: {port: 9010, host: \"\"}",
        VALUE,
        "spec.telnet.host",
        "must not be empty",
    ),
    transport(
        "telnet: {port: 9010}\nordering: {mode: perMessage}",
        VALUE,
        "spec.ordering.mode",
        "not one of perUser",
    ),
    transport(
        "telnet: {port: 9010}\nbroker: {secretRef: {name: b}, profile: mirrored}",
        VALUE,
        "spec.broker.profile",
        "not one of vumi",
    ),
    transport(
        "telnet: {port: 9010}\nbacklogLimit: 0",
        VALUE,
        "spec.backlogLimit",
        "out of range",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, path: messages}",
        VALUE,
        "spec.http.path",
        "begins with /",
    ),
    transport(
        "httpApi: {allowedFields: []}\nhttp: {port: 8080}",
        VALUE,
        "spec.httpApi.allowedFields",
        "at least 1",
    ),
    transport(
        "telnet: {port: 9010}\nmiddleware:\n- {name: a, addressTranslation: {outboundMap: {}}}",
        VALUE,
        "spec.middleware[0].addressTranslation.outboundMap",
        "at least 1",
    ),
    other(
        "Application",
        "staticReply: {text: \"\"}\ntransportName: x",
        VALUE,
        "spec.staticReply.text",
        "must not be empty",
    ),
    // Connector names.
    transport(
        "telnet: {port: 9010}\ntransportName: Telnet",
        VALUE,
        "spec.transportName",
        "not a connector name",
    ),
    transport(
        "telnet: {port: 9010}\ntransportName: a..b",
        VALUE,
        "spec.transportName",
        "not a connector name",
    ),
    transport(
        "telnet: {port: 9010}\ntransportName: a.inbound",
        RULE,
        "spec.transportName",
        "a suffix of our queues",
    ),
    transport(
        "telnet: {port: 9010}\ntransportName: a.p12",
        RULE,
        "spec.transportName",
        "a suffix of our queues",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: parked",
        RULE,
        "spec.transportName",
        "a suffix of our queues",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a.event], exposed: [b]}",
        RULE,
        "spec.simple.transports[0]",
        "a suffix of our queues",
    ),
    // Names of resources.
    named("a.b", "at most 40 characters and no dots"),
    named(
        "a2345678901234567890123456789012345678901",
        "at most 40 characters and no dots",
    ),
    named("status", "without a transportName"),
    // Settings that need, or have no meaning for, a type.
    transport(
        "telnet: {port: 9010}\nhttp: {port: 8080}",
        RULE,
        "spec.http",
        "http has no effect on this type",
    ),
    transport(
        "httpApi: {}",
        RULE,
        "spec.httpApi",
        "httpApi needs http: add",
    ),
    // State store, retention, sending.
    transport(
        "telnet: {port: 9010}\nstate: {}",
        RULE,
        "spec.state",
        "exactly one state store is needed",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nstate: {redis: {secretRef: {name: r}}, volume: {}}",
        RULE,
        "spec.state",
        "found: redis volume",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b]}\nstate: {redis: {keyPrefix: x}}",
        MISSING,
        "spec.state.redis.secretRef",
        "required, but missing",
    ),
    transport(
        "telnet: {port: 9010}\nstate: {redis: {secretRef: {name: r}, keyPrefix: \"a b\"}}",
        VALUE,
        "spec.state.redis.keyPrefix",
        "does not match",
    ),
    transport(
        "telnet: {port: 9010}\nstate: {redis: {secretRef: {name: r}, keySeparator: \"*\"}}",
        VALUE,
        "spec.state.redis.keySeparator",
        "does not match",
    ),
    transport(
        "telnet: {port: 9010}\nstate: {redis: {secretRef: {name: r}, keyPrefix: \"\", keySeparator: \"/\"}}",
        RULE,
        "spec.state.redis.keySeparator",
        "take keySeparator out",
    ),
    transport(
        "telnet: {port: 9010}\nstate: {redis: {secretRef: {name: r}, tls: {ca: x}}}",
        UNKNOWN,
        "spec.state.redis.tls.ca",
        "fields here: caSecretRef",
    ),
    transport(
        "telnet: {port: 9010}\nstate: {volume: {size: 1Mi}}",
        RULE,
        "spec.state.volume.size",
        "at least 16Mi",
    ),
    transport(
        "telnet: {port: 9010}\nretention: {ledger: 59m}",
        RULE,
        "spec.retention.ledger",
        "at least 1h",
    ),
    transport(
        "telnet: {port: 9010}\nretention: {parked: 7d}",
        VALUE,
        "spec.retention.parked",
        "not a duration",
    ),
    transport(
        "telnet: {port: 9010}\nretention: {sessions: 2h}",
        UNKNOWN,
        "spec.retention.sessions",
        "unknown field",
    ),
    transport(
        "telnet: {port: 9010}\nretention: {suspects: 10m}",
        RULE,
        "spec.retention.suspects",
        "at least 1h",
    ),
    transport(
        "telnet: {port: 9010}\nallowVolatileState: yes-please",
        TYPE,
        "spec.allowVolatileState",
        "expected true or false",
    ),
    transport(
        "telnet: {port: 9010}\nonUnknown: {policy: wait}",
        RULE,
        "spec.onUnknown",
        "policy wait needs an end",
    ),
    transport(
        "telnet: {port: 9010}\nonUnknown: {policy: wait, deadline: 2h}",
        RULE,
        "spec.onUnknown",
        "policy wait needs an end",
    ),
    transport(
        "telnet: {port: 9010}\nonUnknown: {policy: fail, deadline: 2h}",
        RULE,
        "spec.onUnknown.deadline",
        "it is for policy wait",
    ),
    transport(
        "telnet: {port: 9010}\nonUnknown: {policy: retry, then: fail}",
        RULE,
        "spec.onUnknown.then",
        "it is for policy wait",
    ),
    transport(
        "telnet: {port: 9010}\nonUnknown: {policy: wait, deadline: 999ms, then: fail}",
        RULE,
        "spec.onUnknown.deadline",
        "at least 1s",
    ),
    transport(
        "telnet: {port: 9010}\nonUnknown: {deadline: 2h, then: fail}",
        MISSING,
        "spec.onUnknown.policy",
        "required, but missing",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nonUnknown: {policy: fail}",
        UNKNOWN,
        "spec.onUnknown",
        "this setting is for Transport",
    ),
    transport(
        "telnet: {port: 9010}\nrateLimit: {burst: 3}",
        MISSING,
        "spec.rateLimit.rate",
        "required, but missing",
    ),
    transport(
        "telnet: {port: 9010}\nrateLimit: {rate: 0}",
        VALUE,
        "spec.rateLimit.rate",
        "out of range",
    ),
    transport(
        "telnet: {port: 9010}\nrateLimit: {rate: 1, unit: messages}",
        VALUE,
        "spec.rateLimit.unit",
        "not one of requests, parts",
    ),
    transport(
        "telnet: {port: 9010}\ndedupe: {}",
        RULE,
        "spec.dedupe",
        "dedupe has no effect on this type",
    ),
    transport(
        "httpApi: {idField: id}\nhttp: {port: 8080}\ndedupe: {window: 169h}",
        RULE,
        "spec.dedupe.window",
        "1s to 168h",
    ),
    transport(
        "telnet: {port: 9010}\nclasses: {default: urgent}",
        VALUE,
        "spec.classes.default",
        "not one of interactive, transactional, bulk",
    ),
    transport(
        "telnet: {port: 9010}\nclasses: {weights: {bulk: 0}}",
        VALUE,
        "spec.classes.weights.bulk",
        "out of range",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nclasses: {}",
        UNKNOWN,
        "spec.classes",
        "this setting is for Transport",
    ),
    transport(
        "telnet: {port: 9010}\ntransportName: sms.bulk",
        RULE,
        "spec.transportName",
        "must not end in a suffix of our queues",
    ),
    // Pods.
    transport(
        "telnet: {port: 9010}\nreplicas: 2",
        RULE,
        "spec.replicas",
        "an ordered worker has one pod at work",
    ),
    transport(
        "telnet: {port: 9010}\nreplicas: 2\nordering: {mode: perUser}",
        RULE,
        "spec.replicas",
        "ordering.partitions (all work)",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\nreplicas: 2\nordering: {mode: perUser, standby: false}",
        RULE,
        "spec.replicas",
        "ordering.standby: true (the others stand by)",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b]}\nreplicas: 3",
        RULE,
        "spec.replicas",
        "ordering.mode: none (no order)",
    ),
    other(
        "Application",
        "staticReply: {text: x}\ntransportName: t\nreplicas: 2\nstate: {volume: {}}",
        RULE,
        "spec.replicas",
        "a state store on a volume is for one pod",
    ),
    transport(
        "telnet: {port: 9010}\nautoscaling: {maxReplicas: 3}",
        RULE,
        "spec.autoscaling",
        "an ordered worker has one pod at work, whatever waits",
    ),
    // Pods that stand by would be added and help nothing.
    transport(
        "telnet: {port: 9010}\nautoscaling: {maxReplicas: 3}\nordering: {mode: perUser, standby: true}",
        RULE,
        "spec.autoscaling",
        "ordering.partitions (all work)",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: t\nautoscaling: {maxReplicas: 9}\nordering: {mode: perUser, partitions: 8}",
        RULE,
        "spec.autoscaling",
        "maxReplicas is more than ordering.partitions",
    ),
    other(
        "Application",
        "staticReply: {text: x}\ntransportName: t\nautoscaling: {maxReplicas: 2}\nstate: {volume: {}}",
        RULE,
        "spec.autoscaling",
        "for one pod, which nothing can scale",
    ),
    transport(
        "telnet: {port: 9010}\nautoscaling: {minReplicas: 0, maxReplicas: 1}",
        RULE,
        "spec.autoscaling",
        "minReplicas: 0 is for workers that only read queues",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\nautoscaling: {minReplicas: 0, maxReplicas: 4}",
        RULE,
        "spec.autoscaling",
        "nobody would listen for callers",
    ),
    other(
        "Application",
        "custom: {image: a, ports: [{name: http, port: 8080}]}\ntransportName: t\nautoscaling: {minReplicas: 0, maxReplicas: 4}",
        RULE,
        "spec.autoscaling",
        "nobody would listen for callers",
    ),
    transport(
        "devNull: {}\nautoscaling: {minReplicas: 5, maxReplicas: 4}",
        RULE,
        "spec.autoscaling.minReplicas",
        "minReplicas must not be more than maxReplicas",
    ),
    transport(
        "devNull: {}\nautoscaling: {minReplicas: 1}",
        MISSING,
        "spec.autoscaling.maxReplicas",
        "required, but missing",
    ),
    transport(
        "devNull: {}\nautoscaling: {maxReplicas: 0}",
        VALUE,
        "spec.autoscaling.maxReplicas",
        "out of range",
    ),
    transport(
        "devNull: {}\nautoscaling: {maxReplicas: 4, scaleDownAfter: 1d}",
        VALUE,
        "spec.autoscaling.scaleDownAfter",
        "is not a duration",
    ),
    transport(
        "devNull: {}\nreplicas: 1001",
        VALUE,
        "spec.replicas",
        "out of range",
    ),
    transport(
        "telnet: {port: 9010}\nreplicas: two",
        TYPE,
        "spec.replicas",
        "expected a whole number",
    ),
    transport(
        "telnet: {port: 9010}\nupdatePolicy: Never",
        VALUE,
        "spec.updatePolicy",
        "not one of OnChange, Immediate, Manual",
    ),
    transport(
        "devNull: {}\nservice: {}",
        RULE,
        "spec.service",
        "service has no effect on this type",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nservice: {}",
        RULE,
        "spec.service",
        "service has no effect on this type: it is for custom",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b]}\nservice: {}",
        UNKNOWN,
        "spec.service",
        "this setting is for Transport and Application",
    ),
    other(
        "Application",
        "custom: {image: a}\ntransportName: x\nretry: {maxAttempts: 3}\nholdLimit: 5s",
        RULE,
        "spec.custom",
        "knows nothing of some settings: remove retry holdLimit",
    ),
    transport(
        "custom: {image: a}\nhttp: {port: 8080}",
        RULE,
        "spec.http",
        "http has no effect on this type",
    ),
    transport(
        "custom: {command: [a]}",
        MISSING,
        "spec.custom.image",
        "required, but missing",
    ),
    transport(
        "custom: {image: a, ports: [{name: http, port: 80}]}",
        VALUE,
        "spec.custom.ports[0].port",
        "out of range",
    ),
    transport(
        "custom: {image: a, env: [{name: A}]}",
        RULE,
        "spec.custom.env[0]",
        "give value or secretKeyRef",
    ),
    transport(
        "custom: {image: a, env: [{name: VUMI_BROKER_URL, value: x}]}",
        RULE,
        "spec.custom.env[0].name",
        "the broker is given by spec.broker",
    ),
    transport(
        "custom: {image: a, env: [{name: \"A B\", value: x}]}",
        VALUE,
        "spec.custom.env[0].name",
        "has a wrong form",
    ),
    transport(
        "telnet: {port: 9010}\nservice: {expose: {host: a.example.net, ingress: {}}}",
        RULE,
        "spec.service",
        "service.expose is for workers that serve HTTP",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\nservice: {expose: {host: a.example.net}}",
        RULE,
        "spec.service.expose",
        "exactly one exposure",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\nservice: {expose: {host: a.example.net, ingress: {}, httpRoute: {gateway: g}}}",
        RULE,
        "spec.service.expose",
        "found: ingress httpRoute",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\nservice: {expose: {ingress: {}}}",
        MISSING,
        "spec.service.expose.host",
        "required, but missing",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\nservice: {expose: {host: \"https://a\", ingress: {}}}",
        VALUE,
        "spec.service.expose.host",
        "is not a host name",
    ),
    transport(
        "telnet: {port: 9010}\nservice: {port: 0}",
        VALUE,
        "spec.service.port",
        "out of range",
    ),
    transport(
        "telnet: {port: 9010}\nresources: {limits: {cpu: 2cores}}",
        VALUE,
        "spec.resources.limits.cpu",
        "write e.g. 250m",
    ),
    transport(
        "telnet: {port: 9010}\nresources: {limits: {memory: 64MB}}",
        VALUE,
        "spec.resources.limits.memory",
        "write 64Mi",
    ),
    transport(
        "telnet: {port: 9010}\nresources: {memory: 64Mi}",
        UNKNOWN,
        "spec.resources.memory",
        "fields here: requests and limits",
    ),
    transport(
        "telnet: {port: 9010}\nnetworkPolicy: {egress: [{ports: [5671]}]}",
        RULE,
        "spec.networkPolicy.egress[0]",
        "exactly one peer",
    ),
    transport(
        "telnet: {port: 9010}\nnetworkPolicy: {ingress: true}",
        UNKNOWN,
        "spec.networkPolicy.ingress",
        "unknown field",
    ),
    transport(
        "telnet: {port: 9010}\noverrides: {containers: []}",
        UNKNOWN,
        "spec.overrides.containers",
        "fields here: metadata and spec",
    ),
    // Middleware.
    transport(
        "telnet: {port: 9010}\nmiddleware:\n- {name: l}",
        RULE,
        "spec.middleware[0]",
        "exactly one middleware type",
    ),
    transport(
        "telnet: {port: 9010}\nmiddleware:\n- {name: l, logging: {}, addressTranslation: {outboundMap: {\"1\": \"2\"}}}",
        RULE,
        "spec.middleware[0]",
        "found: logging addressTranslation",
    ),
    transport(
        "telnet: {port: 9010}\nmiddleware:\n- {name: l, logging: {}}\n- {name: l, logging: {}}",
        RULE,
        "spec.middleware",
        "each middleware needs a name of its own",
    ),
    // Secrets.
    transport(
        "httpApi: {}\nhttp: {port: 8080, auth: {username: u, password: {value: hunter2}}}",
        RULE,
        "spec.http.auth.password",
        "a plain value is for `vumi run` only; use secretKeyRef",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, auth: {username: u, password: {}}}",
        RULE,
        "spec.http.auth.password",
        "say where the secret is kept",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, auth: {username: u, password: {value: hunter2, secretKeyRef: {name: s, key: k}}}}",
        RULE,
        "spec.http.auth.password",
        "give secretKeyRef or value, not both",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, auth: {username: u, password: hunter2}}",
        TYPE,
        "spec.http.auth.password",
        "expected an object",
    ),
];

/// Refused offline by the worker type's own validation; the API server cannot see these, the operator will.
pub const ONLY_OFFLINE: &[Bad] = &[
    transport(
        "custom: {image: a, env: [{name: A, value: a}, {name: A, value: b}]}",
        "manifest.invalid",
        "spec.custom.env[1].name",
        "stands here twice",
    ),
    transport(
        "custom: {image: a, reload: files, env: [{name: A, secretKeyRef: {name: s, key: k}}]}",
        "manifest.invalid",
        "spec.custom.env[0].secretKeyRef",
        "a variable keeps its value",
    ),
    transport(
        "custom: {image: a, ports: [{name: a, port: 8080}, {name: b, port: 8080}]}",
        "manifest.invalid",
        "spec.custom.ports[1]",
        "stands here twice",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, path: /sms}\nservice: {expose: {host: a.example.net, path: /ussd, ingress: {}}}",
        "manifest.invalid",
        "spec.service.expose.path",
        "they would all get 404",
    ),
    transport(
        "telnet: {port: 9010}\nresources: {requests: {memory: 1Gi}, limits: {memory: 64Mi}}",
        "manifest.invalid",
        "spec.resources.requests.memory",
        "more than resources.limits.memory (64Mi)",
    ),
    transport(
        "telnet: {port: 9010}\nresources: {requests: {cpu: \"1.5\"}, limits: {cpu: 500m}}",
        "manifest.invalid",
        "spec.resources.requests.cpu",
        "more than resources.limits.cpu",
    ),
    transport(
        "telnet: {port: 9010}\noverrides: {metadata: {labels: {vumi.dev/name: other}}}",
        "manifest.invalid",
        "spec.overrides.metadata.labels.vumi.dev/name",
        "belongs to the operator",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080}\ndedupe: {}",
        "manifest.invalid",
        "spec.dedupe",
        "without httpApi.idField",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, path: /health}",
        "manifest.invalid",
        "spec.http.path",
        "health checks",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, maxBody: \"0\"}",
        "manifest.invalid",
        "spec.http.maxBody",
        "refused",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, requestTimeout: 0s}",
        "manifest.invalid",
        "spec.http.requestTimeout",
        "in time",
    ),
    transport(
        "telnet: {port: 9010, idleTimeout: 0s}",
        "manifest.invalid",
        "spec.telnet.idleTimeout",
        "at once",
    ),
    transport(
        "telnet: {port: 9010, maxLine: \"0\"}",
        "manifest.invalid",
        "spec.telnet.maxLine",
        "too long",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b, c]}",
        "manifest.invalid",
        "spec.simple.routes",
        "more than one exposed name",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b], routes: {a: [c]}}",
        "manifest.invalid",
        "spec.simple.routes.a",
        "not one of exposed",
    ),
    other(
        "Dispatcher",
        "routingTable: {transports: [a], exposed: [b], table: {a: {default: {connector: a}}}}",
        "manifest.invalid",
        "spec.routingTable.table.a.default.connector",
        "not on the other side",
    ),
    transport(
        "telnet: {port: 9010}\nordering: {mode: perUser, partitions: 8}",
        "manifest.invalid",
        "spec.ordering.partitions",
        "partitions would give its replies to others",
    ),
    transport(
        "httpApi: {allowedFields: [content, timestamp]}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.allowedFields[1]",
        "set by the transport itself",
    ),
    transport(
        "httpApi: {allowedFields: [content, form_addr]}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.allowedFields[1]",
        "did you mean from_addr?",
    ),
    transport(
        "httpApi: {fieldDefaults: {to_addr: \" \"}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.fieldDefaults.to_addr",
        "names nobody",
    ),
    transport(
        "httpApi: {fieldDefaults: {helper_metadata: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.fieldDefaults.helper_metadata",
        "set by the transport itself",
    ),
    transport(
        "httpApi: {fieldDefaults: {message_id: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.fieldDefaults.message_id",
        "an id of its own",
    ),
    transport(
        "httpApi: {fieldDefaults: {form_addr: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.fieldDefaults.form_addr",
        "did you mean from_addr?",
    ),
    transport(
        "telnet: {port: 9010}\nretry: {maxAge: 500ms}",
        "manifest.invalid",
        "spec.retry.maxAge",
        "ends before the first retry",
    ),
    transport(
        "telnet: {port: 9010}\nretry: {backoff: {initial: 1m, max: 30s}}",
        "manifest.invalid",
        "spec.retry.backoff.max",
        "shorter than backoff.initial (1m)",
    ),
    transport(
        "telnet: {port: 9010}\nretry: {backoff: {initial: 10m}}",
        "manifest.invalid",
        "spec.retry.backoff.initial",
        "longer than backoff.max, whose default is 5m",
    ),
    transport(
        "telnet: {port: 9010}\nretry: {backoff: {initial: 0s}}",
        "manifest.invalid",
        "spec.retry.backoff.initial",
        "without a pause",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nholdLimit: 0s",
        "manifest.invalid",
        "spec.holdLimit",
        "at least 1ms",
    ),
    transport(
        "httpApi: {fieldDefaults: {session_event: begin}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.fieldDefaults.session_event",
        "not one of new, resume, close",
    ),
    transport(
        "genericHttp: {}",
        "manifest.invalid",
        "spec.genericHttp",
        "does nothing",
    ),
    transport(
        "genericHttp: {send: {url: 'ftp://x'}}",
        "manifest.invalid",
        "spec.genericHttp.send.url",
        "must begin with http",
    ),
    transport(
        "genericHttp: {send: {url: 'http://x', parameters: {a: '{{ message.contnet }}'}}}",
        "manifest.invalid",
        "spec.genericHttp.send.parameters.a",
        "did you mean message.content?",
    ),
    transport(
        "genericHttp: {send: {url: 'http://x', parameters: {a: '{{ message.content | shout }}'}}}",
        "manifest.invalid",
        "spec.genericHttp.send.parameters.a",
        "shout",
    ),
    transport(
        "genericHttp: {send: {url: 'http://x', body: '{{ x'}}",
        "manifest.invalid",
        "spec.genericHttp.send.body",
        "syntax error",
    ),
    transport(
        "genericHttp: {requests: [{name: a, required: [x], message: {fromAddr: '{{ params.y }}', toAddr: x}}]}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.requests[0].message.fromAddr",
        "there is no params.y",
    ),
    transport(
        "genericHttp: {requests: [{name: a, answer: {}}]}",
        "manifest.invalid",
        "spec.genericHttp.requests",
        "needs a port",
    ),
    transport(
        "genericHttp: {requests: [{name: a, answer: {}}, {name: b, path: /health/sms, answer: {}}]}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.requests[1].path",
        "answered as health checks",
    ),
    transport(
        "genericHttp: {requests: [{name: a, path: /up/, answer: {}}]}\nhttp: {port: 8080, path: /acme, healthPath: /acme/up}",
        "manifest.invalid",
        "spec.genericHttp.requests[0].path",
        "answered as health checks",
    ),
    transport(
        "genericHttp: {requests: [{name: a}]}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.requests[0]",
        "needs an answer",
    ),
    transport(
        "httpApi: {}\nhttp: {port: 8080, degradedAfter: 20s}",
        "manifest.invalid",
        "spec.http.degradedAfter",
        "must not be longer",
    ),
    transport(
        "telnet: {port: 9010}\nmiddleware:\n- {name: a, addressTranslation: {outboundMap: {a: \"1\", b: \"1\"}}}",
        "manifest.invalid",
        "spec.middleware[0].addressTranslation.outboundMap",
        "same target",
    ),
    other(
        "Application",
        "echo: {}\ntransportName: x\nmiddleware:\n- {name: a, addressTranslation: {outboundMap: {a: \"1\", b: \"1\"}}}",
        "manifest.invalid",
        "spec.middleware[0].addressTranslation.outboundMap",
        "same target",
    ),
    other(
        "Dispatcher",
        "simple: {transports: [a], exposed: [b]}\nmiddleware:\n- {name: a, addressTranslation: {outboundMap: {a: \"1\", b: \"1\"}}}",
        "manifest.invalid",
        "spec.middleware[0].addressTranslation.outboundMap",
        "same target",
    ),
    transport(
        "httpRpc: {fields: {content: text, fromAddr: msisdn}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.fields",
        "no message has toAddr",
    ),
    transport(
        "httpRpc: {fields: {toAddr: x, fromAddr: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.fields.fromAddr",
        "parameter x holds two fields",
    ),
    transport(
        "httpRpc: {defaults: {sessionEvent: begin}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.defaults.sessionEvent",
        "not one of new, resume, close",
    ),
    transport(
        "httpRpc: {deadline: {after: 60s, text: x}}\nhttp: {port: 8080, requestTimeout: 60s}",
        "manifest.invalid",
        "spec.httpRpc.deadline.after",
        "must be shorter than http.requestTimeout",
    ),
    transport(
        "httpApi: {deadline: {after: 20s, text: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.deadline",
        "has no effect without replyExpected: true",
    ),
    transport(
        "httpApi: {replyExpected: true, deadline: {after: 5m, text: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.deadline.after",
        "must be shorter than http.requestTimeout",
    ),
    transport(
        "httpApi: {unclearNumbers: pass}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.unclearNumbers",
        "has no effect without numbersOf",
    ),
    transport(
        "httpApi: {access: {headers: {X-Key: '{{ config.key }}'}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.access.headers.X-Key",
        "config.key",
    ),
    transport(
        "httpApi: {secrets: {key: {secretKeyRef: {name: a, key: b}}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.secrets",
        "has no effect without `access`",
    ),
    transport(
        "httpApi: {idField: id, access: {signature: {header: X, tolerance: 5m, secrets: [{secretKeyRef: {name: a, key: b}}]}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.access.signature.tolerance",
        "has no effect without timestampHeader",
    ),
    transport(
        "httpApi: {access: {signature: {header: X, secrets: [{secretKeyRef: {name: a, key: b}}]}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpApi.access.signature",
        "good for ever: name timestampHeader, or idField",
    ),
    transport(
        "httpRpc: {access: {signature: {header: X, secrets: [{secretKeyRef: {name: a, key: b}}]}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.access.signature",
        "good for ever: name timestampHeader, or idField",
    ),
    transport(
        "httpRpc: {methods: [GET, POST], access: {signature: {header: X, timestampHeader: T, secrets: [{secretKeyRef: {name: a, key: b}}]}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.methods",
        "nothing of a GET is signed",
    ),
    transport(
        "httpRpc: {unclearNumbers: pass}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.unclearNumbers",
        "has no effect without numbersOf",
    ),
    transport(
        "httpRpc: {access: {headers: {'X Key': x}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.httpRpc.access.headers.X Key",
        "is no name of a header",
    ),
    transport(
        "mediafone: {url: 'http://x', username: u, password: {secretKeyRef: {name: a, key: b}}, unclearNumbers: pass}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.mediafone.unclearNumbers",
        "has no effect without numbersOf",
    ),
    transport(
        "genericHttp: {unclearNumbers: pass, requests: [{name: a, message: {fromAddr: a, toAddr: b}}]}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.unclearNumbers",
        "has no effect without numbersOf",
    ),
    transport(
        "genericHttp: {requests: [{name: a, message: {fromAddr: a, toAddr: b}}], session: {id: x, redial: resume}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.session.redial",
        "no effect without `deadline`",
    ),
    transport(
        "genericHttp: {requests: [{name: a, message: {fromAddr: a, toAddr: b}}], session: {id: x, redialWithin: 1m}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.session.redialWithin",
        "no effect without redial",
    ),
    transport(
        "genericHttp: {requests: [{name: a, message: {fromAddr: a, toAddr: b}}], session: {id: x, keep: 20s}, deadline: {after: 20s, text: x}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.session.keep",
        "must be longer than deadline.after (20s)",
    ),
    transport(
        "genericHttp: {requests: [{name: a, message: {fromAddr: a, toAddr: b}}], access: {signature: {header: X, tolerance: 5m, secrets: [{secretKeyRef: {name: a, key: b}}]}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.access.signature.tolerance",
        "no effect without timestampHeader",
    ),
    transport(
        "genericHttp: {requests: [{name: a, message: {fromAddr: a, toAddr: b}}], access: {signature: {header: X, timestampHeader: T, tolerance: 0s, secrets: [{secretKeyRef: {name: a, key: b}}]}}}\nhttp: {port: 8080}",
        "manifest.invalid",
        "spec.genericHttp.access.signature.tolerance",
        "write at least 1s",
    ),
    transport(
        "httpRpc: {validationMode: strict}\nhttp: {port: 8080}\ndedupe: {}",
        "manifest.invalid",
        "spec.dedupe",
        "without httpRpc.idField",
    ),
    other(
        "Application",
        "httpRelay: {url: 'https://me:secret@crm.example/'}\ntransportName: x",
        "manifest.invalid",
        "spec.httpRelay.url",
        "write them into auth",
    ),
    other(
        "Application",
        "httpRelay: {url: 'https://', eventUrl: 'http://crm.example/#events'}\ntransportName: x",
        "manifest.invalid",
        "spec.httpRelay.eventUrl",
        "no address that can be called",
    ),
    other(
        "Application",
        "httpRelay: {url: 'http://crm.example', eventUrl: 'http://crm.example/e', events: []}\ntransportName: x",
        "manifest.invalid",
        "spec.httpRelay.eventUrl",
        "events is empty",
    ),
];

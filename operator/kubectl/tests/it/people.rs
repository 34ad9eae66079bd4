//! What people may do with the ClusterRoles that are shipped for them.

use crate::place::Place;
use serde_json::json;
use vumi_api::Kind;
use vumi_api::crds::GROUP;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

fn bind(place: &Place, role: &str, user: &str) {
    place.put(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }));
}

fn may(place: &Place, user: &str, verb: &str, resource: &str, below: &str) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "resourceAttributes": {
                "namespace": "campaign", "group": GROUP, "resource": resource, "subresource": below, "verb": verb,
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let body = review.to_string();
    let body = Some(("application/json", body.as_str()));
    let (status, answer) = place.server.request("POST", path, body).unwrap();
    assert_eq!(status, 201, "{answer}");
    answer["status"]["allowed"] == true
}

/// Kubernetes adds them to its own ClusterRoles by their labels; whoever has one of ours alone may do this.
pub fn have_the_rights_of_their_roles(place: &Place) {
    let added = |role: &str| -> Vec<String> {
        let role = place.get(&format!("{ROLES}/{role}"));
        let labels = role["metadata"]["labels"].as_object().unwrap().clone();
        let labels = labels
            .into_iter()
            .filter(|(_, says)| says.as_str() == Some("true"));
        let prefix = "rbac.authorization.k8s.io/aggregate-to-";
        let names = labels.map(|(name, _)| name.strip_prefix(prefix).unwrap().to_owned());
        names.collect()
    };
    assert_eq!(added("vumi-view"), ["admin", "edit", "view"]);
    assert_eq!(added("vumi-edit"), ["admin", "edit"]);
    bind(place, "vumi-view", "onlooker");
    bind(place, "vumi-edit", "author");
    place.until("the API server to hear of it", |place| {
        may(place, "onlooker", "list", "transports", "")
            && may(place, "author", "patch", "transports", "")
    });
    for kind in Kind::ALL {
        let plural = kind.plural();
        for verb in ["get", "list", "watch"] {
            assert!(may(place, "onlooker", verb, &plural, ""), "{verb} {plural}");
        }
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            assert!(may(place, "author", verb, &plural, ""), "{verb} {plural}");
            assert!(
                !may(place, "onlooker", verb, &plural, ""),
                "{verb} {plural}"
            );
        }
        assert!(
            !may(place, "author", "patch", &plural, "status"),
            "{plural}"
        );
        if kind != Kind::MetricAggregator {
            assert!(may(place, "author", "patch", &plural, "scale"), "{plural}");
            assert!(
                !may(place, "onlooker", "patch", &plural, "scale"),
                "{plural}"
            );
        }
    }
}

//! What stands under the name of a child, as the operator takes it.

use crate::names::{KIND, NAME};
use serde_json::Value;
use vumi_api::Resource;

/// What an object is to a resource whose child has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that the operator knows for its own: it takes no field of it from others.
    Foreign,
    /// Its own: what others have taken, it takes back.
    Own,
    /// It waits until this is gone: it is being deleted, or belongs to an earlier resource of this name.
    Leaving,
}

impl Found {
    /// What an object is that has the labels of the resource. `controller`: the uid of what owns it; `uid`: that of the resource, if
    /// there is one.
    pub fn labelled(deleting: bool, controller: Option<&str>, uid: Option<&str>) -> Self {
        let of_another = controller.is_some() && controller != uid;
        match deleting || of_another {
            true => Self::Leaving,
            false => Self::Own,
        }
    }

    /// What an object is, as the API server gives it.
    pub fn of(object: &Value, resource: &Resource, uid: Option<&str>) -> Self {
        let metadata = &object["metadata"];
        let labels = &metadata["labels"];
        if labels[KIND] != resource.kind().as_str() || labels[NAME] != resource.name.as_str() {
            return Self::Foreign;
        }
        let owners = metadata["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        let controller = owners.find(|owner| owner["controller"] == true);
        let controller = controller.map(|owner| owner["uid"].as_str().unwrap_or_default());
        let deleting = metadata["deletionTimestamp"].is_string();
        Self::labelled(deleting, controller, uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vumi_api::{Kind, Spec};

    #[test]
    fn an_object_is_what_the_operator_takes_it_for() {
        let resource = Resource {
            name: "sms".into(),
            namespace: None,
            spec: Spec::from_json(Kind::Transport, json!({"devNull": {}})).unwrap(),
        };
        let labels = json!({KIND: "Transport", NAME: "sms"});
        let owned = |uid: &str| json!([{"uid": uid, "controller": true}]);
        for (metadata, uid, expected) in [
            (
                json!({"labels": labels, "ownerReferences": owned("1")}),
                Some("1"),
                Found::Own,
            ),
            // Adopted: by labels alone.
            (json!({"labels": labels}), None, Found::Own),
            (
                json!({"labels": labels, "ownerReferences": owned("0")}),
                Some("1"),
                Found::Leaving,
            ),
            (
                json!({"labels": labels, "ownerReferences": owned("0")}),
                None,
                Found::Leaving,
            ),
            (
                json!({"labels": labels, "deletionTimestamp": "now"}),
                Some("1"),
                Found::Leaving,
            ),
            (
                json!({"labels": {KIND: "Transport", NAME: "other"}}),
                Some("1"),
                Found::Foreign,
            ),
            (json!({"name": "transport-sms"}), Some("1"), Found::Foreign),
        ] {
            let object = json!({"metadata": metadata});
            assert_eq!(Found::of(&object, &resource, uid), expected, "{object}");
        }
    }
}

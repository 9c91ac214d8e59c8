//! Which of a Service's pods is asked, and at which port.

use k8s_openapi::api::core::v1::Pod;

/// The name of a `containerPort`, as the chart has it.
const ADMIN: &str = "admin";
/// Of a pod that names none, as those of Knative cannot.
const USUAL_PORT: u16 = 8086;

/// Of those that are ready the oldest; of those that are as old the first by name. So one command after the other asks the same.
pub fn chosen(pods: &[Pod]) -> Option<&Pod> {
    let age = |pod: &&Pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.metadata.name.clone());
    pods.iter().filter(|pod| is_ready(pod)).min_by_key(age)
}

/// Whether it serves, and goes on with that.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Where its box has its admin port.
pub fn admin_port(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let admin = ports.find(|port| port.name.as_deref() == Some(ADMIN));
    admin.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(USUAL_PORT)
}

/// `NAME (Pending)`.
pub fn state(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("unknown");
    let is_ending = pod.metadata.deletion_timestamp.is_some();
    let state = if is_ending { "it is being ended" } else { phase };
    format!("{} ({state})", pod.metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, created: &str, ready: &str) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn name(pods: &[Value]) -> Option<String> {
        let pods: Vec<Pod> = pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
        chosen(&pods).and_then(|pod| pod.metadata.name.clone())
    }

    #[test]
    fn the_oldest_that_is_ready_is_asked() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let pods = [pod("d", new, "True"), pod("c", old, "True"), pod("b", old, "True"), pod("a", old, "False")];
        assert_eq!(name(&pods), Some("b".into()));
        let mut ending = pods.clone();
        ending[2]["metadata"]["deletionTimestamp"] = json!(new);
        assert_eq!(name(&ending), Some("c".into()));
        assert_eq!(name(&pods[3..]), None);
        assert_eq!(name(&[json!({"metadata": {"name": "new"}})]), None);
    }

    #[test]
    fn the_port_is_the_one_named_admin() {
        let port = |ports: Value| {
            let pod = json!({"spec": {"containers": [{"name": "proxy"}, {"name": "box", "ports": ports}]}});
            admin_port(&serde_json::from_value(pod).unwrap())
        };
        assert_eq!(
            port(json!([{"name": "http", "containerPort": 8095}, {"name": "admin", "containerPort": 9000}])),
            9000
        );
        assert_eq!(port(json!([{"name": "http", "containerPort": 8095}])), 8086);
        assert_eq!(port(json!([{"name": "admin", "containerPort": 70000}])), 8086);
    }
}

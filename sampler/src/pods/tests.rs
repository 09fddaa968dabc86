//! The watch against an API server that says what each test wants it to. A real one is in `tests/apiserver`.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Mutex;

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::*;

/// One answer to one request.
enum Answer {
    /// A status and a body, then the end.
    Says(u16, String),
    /// None, for ever.
    Nothing,
    /// The connection breaks.
    Breaks,
}

use Answer::{Breaks, Nothing, Says};

/// What was asked: path and query.
type Asked = Arc<Mutex<Vec<String>>>;

/// An API server that gives these answers, one to each request, and then none.
fn server(answers: impl IntoIterator<Item = Answer>) -> (Client, Asked) {
    let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        heard.lock().unwrap().push(request.uri().to_string());
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Nothing);
        async move {
            match answer {
                Says(status, body) => {
                    Ok::<_, BoxError>(Response::builder().status(status).body(Body::from(body.into_bytes()))?)
                }
                Nothing => pending().await,
                Breaks => Err(BoxError::from("connection refused")),
            }
        }
    });
    (Client::new(service, "default"), asked)
}

fn id(digit: char) -> ContainerId {
    digit.to_string().repeat(64).try_into().unwrap()
}

/// A pod with one container, both named after a digit.
fn pod(digit: char) -> Value {
    json!({
        "metadata": {
            "name": format!("pod-{digit}"), "namespace": "shop", "resourceVersion": "1",
            "uid": digit.to_string().repeat(32),
        },
        "status": { "containerStatuses": [{
            "name": "nginx", "containerID": format!("containerd://{}", id(digit).as_str()),
        }] },
    })
}

fn list(pods: &[char]) -> Answer {
    let items: Vec<_> = pods.iter().map(|&digit| pod(digit)).collect();
    Says(200, json!({ "metadata": { "resourceVersion": "1" }, "items": items }).to_string())
}

fn event(kind: &str, object: &Value) -> String {
    json!({ "type": kind, "object": object }).to_string() + "\n"
}

fn failure(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "message": message, "reason": "" })
}

fn refuses(code: u16, message: &str) -> Answer {
    Says(code, failure(code, message).to_string())
}

fn watch(client: Client) -> Pods {
    Pods::watch(client, &NodeName("node-1".into()))
}

/// Waits for `condition`; the paused clock makes every delay short.
async fn until(pods: &Pods, condition: impl Fn(&Status) -> bool) -> Status {
    for _ in 0..100_000 {
        let status = pods.status();
        if condition(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {:?}", pods.status());
}

fn name(pods: &Pods, digit: char) -> Option<String> {
    pods.names(&id(digit), None).map(|names| format!("{}/{}", names.namespace, names.pod))
}

#[tokio::test(start_paused = true)]
async fn pods_are_listed_and_then_followed() {
    let events = [event("ADDED", &pod('b')), event("MODIFIED", &pod('b')), event("DELETED", &pod('a'))];
    let (client, asked) = server([list(&['a']), Says(200, events.concat())]);
    let pods = watch(client);
    assert_eq!(pods.status(), Status::default());
    let status = until(&pods, |status| status.pods == 1 && status.lists == 1).await;
    assert_eq!(status.containers, 1);
    until(&pods, |_| name(&pods, 'a').is_none()).await;
    assert_eq!(name(&pods, 'b').as_deref(), Some("shop/pod-b"));
    assert_eq!(
        pods.status(),
        Status { state: State::Watching, lists: 1, pods: 1, containers: 1, ..Status::default() }
    );
    let asked = asked.lock().unwrap();
    for request in asked.iter() {
        assert!(request.starts_with("/api/v1/pods?"), "{request}");
        assert!(request.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{request}");
    }
    assert!(asked[0].contains("resourceVersion=0"), "{}", asked[0]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_quietly_is_resumed_without_a_list() {
    let (client, asked) =
        server([list(&['a']), Says(200, String::new()), Says(200, event("ADDED", &pod('b')))]);
    let pods = watch(client);
    let status = until(&pods, |_| name(&pods, 'b').is_some()).await;
    assert_eq!((status.lists, status.troubles), (1, 0));
    assert!(asked.lock().unwrap()[2].contains("watch=true"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fell_behind_begins_anew_and_forgets_what_went_meanwhile() {
    let gone = event("ERROR", &failure(410, "too old resource version"));
    let (client, _) = server([list(&['a', 'b']), Says(200, gone), list(&['b', 'c'])]);
    let pods = watch(client);
    let status = until(&pods, |status| status.lists == 2).await;
    assert_eq!((status.state, status.troubles, status.pods), (State::Watching, 1, 2));
    assert_eq!(['a', 'b', 'c'].map(|digit| name(&pods, digit).is_some()), [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn names_stay_while_there_is_no_answer_and_are_current_again_after() {
    let (client, _) = server([list(&['a']), Breaks, Breaks, refuses(500, "etcd is away"), list(&['b'])]);
    let pods = watch(client);
    let status = until(&pods, |status| status.troubles == 2).await;
    assert_eq!(
        status.state,
        State::Troubled(Trouble::Unreachable("ServiceError: connection refused".into()))
    );
    assert_eq!(name(&pods, 'a').as_deref(), Some("shop/pod-a"));
    let status = until(&pods, |status| status.lists == 2).await;
    assert_eq!((status.state, status.troubles), (State::Watching, 3));
    assert_eq!((name(&pods, 'a'), name(&pods, 'b').as_deref()), (None, Some("shop/pod-b")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_a_list_is_out_of_reach() {
    let (client, _) = server([Nothing, list(&['a'])]);
    let pods = watch(client);
    let status = until(&pods, |status| status.troubles == 1).await;
    assert_eq!(status.state, State::Troubled(Trouble::Unreachable("no answer in 60 s".into())));
    until(&pods, |status| status.state == State::Watching).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_apart_and_tried_again() {
    let (client, _) = server([refuses(403, "pods is forbidden"), refuses(401, "Unauthorized"), list(&['a'])]);
    let pods = watch(client);
    let status = until(&pods, |status| status.troubles == 1).await;
    assert_eq!(status.state, State::Troubled(Trouble::Forbidden("pods is forbidden".into())));
    let status = until(&pods, |status| status.troubles == 2).await;
    assert_eq!(status.state, State::Troubled(Trouble::Unauthorized("Unauthorized".into())));
    until(&pods, |status| status.state == State::Watching).await;
    assert!(name(&pods, 'a').is_some());
}

#[tokio::test(start_paused = true)]
async fn one_odd_pod_is_counted_and_harms_no_other() {
    let items = [json!({ "metadata": { "uid": "odd" } }), pod('a')];
    let answer = json!({ "metadata": { "resourceVersion": "1" }, "items": items }).to_string();
    let (client, _) = server([Says(200, answer)]);
    let pods = watch(client);
    let status = until(&pods, |status| status.lists == 1).await;
    assert_eq!((status.pods, status.left_out), (1, 1));
    assert!(name(&pods, 'a').is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_list_is_trouble_of_its_own() {
    let (client, _) = server([Says(200, "<html>".into()), list(&['a'])]);
    let pods = watch(client);
    let status = until(&pods, |status| status.troubles == 1).await;
    assert!(matches!(status.state, State::Troubled(Trouble::Unreadable(_))), "{:?}", status.state);
    until(&pods, |status| status.state == State::Watching).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_it_ends_the_watch() {
    let (client, asked) = server((0..1000).map(|_| Breaks));
    let pods = watch(client);
    until(&pods, |status| status.troubles == 1).await;
    drop(pods);
    // What runs already may come to its next await.
    tokio::task::yield_now().await;
    let before = asked.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(asked.lock().unwrap().len(), before);
}

#[test]
fn a_node_name_cannot_change_the_selector() {
    for right in ["node-1", "ip-10-0-0-1.eu-west-1.compute.internal"] {
        assert_eq!(NodeName::try_from(right.to_owned()), Ok(NodeName(right.into())));
    }
    for wrong in ["", "a,metadata.namespace=x", "a!=b", "Node", "a b", &"x".repeat(254)] {
        assert_eq!(NodeName::try_from(wrong.to_owned()), Err(NodeNameError(wrong.into())));
    }
}

//! The chat page in a real Chromium.

use std::process::Stdio;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use phalanx_testkit::{Process, Redis, Signal, free_port};
use rustix::process::{Pid, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::get;

/// A limit for every step of a page; a loaded machine starts a browser slowly.
const SOON: Duration = Duration::from_secs(60);

/// A browser and its driver; both are killed when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    _profile: tempfile::TempDir,
    pub(crate) client: Client,
}

/// The browser is the driver's child and outlives it, so both are killed by their group.
impl Drop for Browser {
    fn drop(&mut self) {
        let group = self.driver.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL); // it may have exited already
        }
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", profile.path()) // their temporary files are removed with the profile
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .expect("chromedriver is installed: tests/run.sh does it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
            panic!("chromedriver ended before it listened")
        };
        let port = timeout(SOON, port).await.expect("chromedriver prints its port");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let folder = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox", // tests run as root in containers
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,800",
            &folder,
        ];
        let Value::Object(capabilities) = json!({ "goog:chromeOptions": { "args": arguments } }) else {
            unreachable!("the literal above is an object")
        };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let driver_url = format!("http://127.0.0.1:{port}");
        let connecting = builder.capabilities(capabilities).connect(&driver_url);
        let client = timeout(SOON, connecting).await.expect("the browser starts").unwrap();
        Self { driver, _profile: profile, client }
    }

    /// Waits for an element.
    pub(crate) async fn wait_for(&self, xpath: &str) {
        let found = self.client.wait().at_most(SOON).for_element(Locator::XPath(xpath)).await;
        if let Err(error) = found {
            panic!("{xpath}: {error}; the page reads:\n{}", self.text().await);
        }
    }

    async fn text(&self) -> String {
        self.client.find(Locator::Css("body")).await.unwrap().text().await.unwrap()
    }

    /// Types into a field and submits its form with Enter, by keyboard only.
    pub(crate) async fn submit(&self, field: &str, text: &str) {
        let found = self.client.wait().at_most(SOON).for_element(Locator::Css(field)).await.unwrap();
        found.send_keys(&format!("{text}\n")).await.unwrap();
    }

    /// Opens the page and joins the room under a name.
    async fn enter(&self, page: &str, name: &str) {
        self.client.goto(page).await.unwrap();
        self.submit("#name", name).await;
        self.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
        self.wait_for(r#"//*[@id="room"][not(@hidden)]"#).await;
    }
}

fn message(from: &str, text: &str) -> String {
    format!(r#"//*[@id="log"]/*[contains(., "{from}") and contains(., "{text}")]"#)
}

fn member(name: &str) -> String {
    format!(r#"//*[@id="members"]/*[contains(., "{name}")]"#)
}

#[tokio::test]
async fn two_tabs_chat_and_reconnect_when_their_node_restarts() {
    let port = free_port().to_string();
    let node = Process::start("chat", &[("PORT", &port)]).await;
    let page = format!("http://{}/", node.addr);
    let browser = Browser::start().await;
    let client = &browser.client;
    let ann = client.window().await.unwrap();
    browser.enter(&page, "Ann").await;
    let bob = client.new_window(true).await.unwrap().handle;
    client.switch_to_window(bob.clone()).await.unwrap();
    browser.enter(&page, "Bob").await;
    browser.wait_for(&member("Ann")).await;
    browser.submit("#text", "hello <b>Ann</b>").await;
    browser.wait_for(&message("Bob", "hello <b>Ann</b>")).await;
    client.switch_to_window(ann.clone()).await.unwrap();
    browser.wait_for(&message("Bob", "hello <b>Ann</b>")).await;
    browser.wait_for(&member("Bob")).await;
    browser.submit("#text", "hello Bob").await;
    client.switch_to_window(bob.clone()).await.unwrap();
    browser.wait_for(&message("Ann", "hello Bob")).await;

    // The node is killed and started again on the same port: both tabs reconnect and rejoin the room.
    drop(node);
    browser.wait_for(r#"//*[@id="state"][contains(., "reconnecting")]"#).await;
    let node = Process::start("chat", &[("PORT", &port)]).await;
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    client.switch_to_window(ann).await.unwrap();
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    browser.wait_for(&member("Bob")).await;
    browser.submit("#text", "still here").await;
    client.switch_to_window(bob).await.unwrap();
    browser.wait_for(&message("Ann", "still here")).await;
    client.close_window().await.unwrap();
    let members = get(node.addr, "/api/rooms/lobby/members").await.json();
    assert!(members["members"].as_array().unwrap().iter().any(|member| member["name"] == "Ann"), "{members}");
}

#[tokio::test]
async fn a_page_drops_a_silent_node_and_reconnects_once_it_answers() {
    let node = Process::start("chat", &[("PHALANX__WEBSOCKET__HEARTBEAT", "5s")]).await;
    let browser = Browser::start().await;
    browser.enter(&format!("http://{}/", node.addr), "Ann").await;
    node.freeze();
    browser.wait_for(r#"//*[@id="state"][contains(., "reconnecting")]"#).await;
    node.thaw();
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    browser.submit("#text", "still here").await;
    browser.wait_for(&message("Ann", "still here")).await;
}

#[tokio::test]
async fn a_page_shows_that_its_node_is_cut_off_and_that_messages_may_be_missing() {
    let mut redis = Redis::start().await;
    let url = format!("redis://{}", redis.addr());
    let node = Process::start("chat", &[("REDIS_URL", url.as_str())]).await;
    let browser = Browser::start().await;
    browser.enter(&format!("http://{}/", node.addr), "Ann").await;
    redis.kill().await;
    browser.wait_for(r#"//*[@id="state"][contains(., "cut off")]"#).await;
    redis.start_again().await;
    browser.wait_for(r#"//*[@id="state"][.="connected"]"#).await;
    browser.wait_for(r#"//*[@id="log"]/*[contains(., "may be missing")]"#).await;
    browser.submit("#text", "still here").await;
    browser.wait_for(&message("Ann", "still here")).await;
}

#[tokio::test]
async fn the_page_fits_a_phone_and_labels_its_elements() {
    let node = Process::start("chat", &[]).await;
    let browser = Browser::start().await;
    browser.client.set_window_size(360, 740).await.unwrap();
    browser.enter(&format!("http://{}/", node.addr), "Ann").await;
    browser.submit("#text", &"wide".repeat(100)).await;
    browser.wait_for(&message("Ann", "wide")).await;
    let check = "const page = document.documentElement; return [page.scrollWidth <= innerWidth, page.lang, \
        [...document.querySelectorAll('input')].every((input) => input.labels.length === 1), \
        document.querySelector('#log').getAttribute('role'), document.querySelector('#state').getAttribute('role')];";
    let result = browser.client.execute(check, vec![]).await.unwrap();
    assert_eq!(result, json!([true, "en", true, "log", "status"]));
}

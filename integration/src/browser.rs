//! A real browser, driven as a person would (W3C WebDriver, by Debian's chromedriver).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::Child;
use crate::folders::scratch;
use crate::http::{RUNTIME, connections};
use crate::ports::free_port;
use crate::wait::wait_for;

/// The member under which an element's id comes (WebDriver, section 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const ANSWER: Duration = Duration::from_secs(60);

/// An open browser window.
#[derive(Debug)]
pub struct Browser {
    session: String,
    http: reqwest::Client,
    _driver: Child,
    _folder: TempDir,
}

impl Browser {
    /// Starts a headless Chromium with an empty profile.
    ///
    /// # Errors
    /// When driver or browser do not start.
    pub fn start() -> Result<Browser> {
        let folder = scratch("browser")?;
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let driver = Child::start("chromedriver", &command, &folder.path().join("driver.log"))?;
        let base = format!("http://127.0.0.1:{port}");
        let mut browser = Browser { session: base.clone(), http: connections(), _driver: driver, _folder: folder };
        let profile = browser._folder.path().join("profile");
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,800",
            format!("--user-data-dir={}", profile.display()),
        ]});
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        wait_for("chromedriver", ANSWER, || browser.ask("GET", "/status", None).ok())?;
        let session = browser.ask("POST", "/session", Some(&wanted)).context("start Chromium")?;
        let id = session.get("sessionId").and_then(Value::as_str).context("a session's id")?;
        browser.session = format!("{base}/session/{id}");
        Ok(browser)
    }

    /// Opens an address.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn open(&self, url: &str) -> Result<()> {
        self.ask("POST", "/url", Some(&json!({"url": url}))).map(|_| ())
    }

    /// Types into the element that a CSS selector finds.
    ///
    /// # Errors
    /// When there is none or it cannot be typed into.
    pub fn type_into(&self, selector: &str, text: &str) -> Result<()> {
        let element = self.find(selector)?;
        self.ask("POST", &format!("/element/{element}/value"), Some(&json!({"text": text}))).map(|_| ())
    }

    /// Clicks the element that a CSS selector finds.
    ///
    /// # Errors
    /// When there is none or it cannot be clicked.
    pub fn click(&self, selector: &str) -> Result<()> {
        let element = self.find(selector)?;
        self.ask("POST", &format!("/element/{element}/click"), Some(&json!({}))).map(|_| ())
    }

    /// The text that a person sees in the element that a CSS selector finds.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self, selector: &str) -> Result<String> {
        let element = self.find(selector)?;
        let text = self.ask("GET", &format!("/element/{element}/text"), None)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a script's body in the page and gives what it returns.
    ///
    /// # Errors
    /// When it throws.
    pub fn script(&self, body: &str) -> Result<Value> {
        self.ask("POST", "/execute/sync", Some(&json!({"script": body, "args": []})))
    }

    /// Takes a picture of the window.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let picture = self.ask("GET", "/screenshot", None)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap_or_default())?;
        std::fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
    }

    fn find(&self, selector: &str) -> Result<String> {
        let found = self.ask("POST", "/element", Some(&json!({"using": "css selector", "value": selector})))?;
        Ok(found.get(ELEMENT).and_then(Value::as_str).with_context(|| format!("{selector} in the page"))?.to_owned())
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).context("a method")?;
        let mut request = self.http.request(method, format!("{}{path}", self.session)).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(body);
        }
        RUNTIME.block_on(async {
            let answer = request.send().await.with_context(|| format!("ask the browser for {path}"))?;
            let status = answer.status();
            let mut answer: Value = answer.json().await.with_context(|| format!("the browser's answer to {path}"))?;
            let value = answer.get_mut("value").map(Value::take).unwrap_or_default();
            ensure!(status.is_success(), "{path}: {status} {value:.500}");
            Ok(value)
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; its driver is ended as a child.
        let _ = self.ask("DELETE", "", None);
    }
}

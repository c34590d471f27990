//! A mail server for tests: speaks SMTP on a loopback port, takes every letter, and keeps it until it is asked for.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a letter may take.
const DEADLINE: Duration = Duration::from_secs(30);

pub struct PostOffice {
    pub address: SocketAddr,
    letters: UnboundedReceiver<Delivered>,
}

/// A letter as it came.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub to: Vec<String>,
    /// Head and body, lines ended by `\n`.
    pub raw: String,
}

impl PostOffice {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, letters) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, sender.clone()));
            }
        });
        Self { address, letters }
    }

    /// For `mail.server`.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The next letter; panics if none comes.
    pub async fn next(&mut self) -> Delivered {
        let next = tokio::time::timeout(DEADLINE, self.letters.recv()).await;
        next.expect("a letter comes in time").expect("the post office is open")
    }

    /// The next letter to this address; those to others before it are dropped.
    pub async fn next_to(&mut self, address: &str) -> Delivered {
        loop {
            let letter = self.next().await;
            if letter.to == [address] {
                return letter;
            }
        }
    }
}

impl Delivered {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.raw.split("\n\n").next().unwrap_or_default();
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The whole text, with what quoted-printable hid put back.
    pub fn text(&self) -> String {
        if !self.raw.to_ascii_lowercase().contains("quoted-printable") {
            return self.raw.clone();
        }
        self.raw.replace("=\n", "").replace("=3D", "=")
    }

    /// The token of the link.
    pub fn token(&self) -> String {
        let text = self.text();
        let (_, rest) = text.split_once("token=").unwrap_or_else(|| panic!("no token in {text}"));
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
    }
}

async fn converse(stream: TcpStream, letters: UnboundedSender<Delivered>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let _ = say(&mut write, "220 test").await;
    let mut to = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let upper = line.to_ascii_uppercase();
        let answer = if upper == "DATA" {
            let _ = say(&mut write, "354 go on").await;
            let Some(raw) = letter(&mut lines).await else { return };
            let _ = letters.send(Delivered { to: std::mem::take(&mut to), raw });
            "250 taken"
        } else if upper == "QUIT" {
            let _ = say(&mut write, "221 bye").await;
            return;
        } else {
            if upper.starts_with("RCPT TO:") {
                let address = line["RCPT TO:".len()..].split(['<', '>']).nth(1);
                to.extend(address.map(str::to_owned));
            }
            "250 fine"
        };
        if say(&mut write, answer).await.is_err() {
            return;
        }
    }
}

/// Up to the line that holds a dot alone.
async fn letter(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<String> {
    let mut raw = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "." {
            return Some(raw);
        }
        raw.push_str(line.strip_prefix('.').unwrap_or(&line));
        raw.push('\n');
    }
    None
}

async fn say(write: &mut OwnedWriteHalf, line: &str) -> std::io::Result<()> {
    write.write_all(format!("{line}\r\n").as_bytes()).await
}

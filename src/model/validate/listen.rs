//! `listen` and `run` of an instance: small servers of ours, and commands.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::Proto;
use crate::model::plan::{ListenReply, Listener, RunCommand};
use crate::model::spec::fields::{At, Fields};
use crate::model::spec::keys;
use crate::model::spec::node::Value;
use crate::model::spec::report::did_you_mean;

const REPLIES: [&str; 6] = ["hello", "echo", "sink", "http", "source", "proxy"];

pub fn listeners(instance: &Fields<'_>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let mut taken = HashMap::new();
    for node in instance.list("listen") {
        let place = node.entries().first().map_or(instance.key_place("listen"), |e| e.key_place);
        let Some(f) = Fields::open_node(instance.cx, &keys::LISTEN, instance.title.clone(), node, place) else {
            continue;
        };
        let (tcp, udp) = (f.int("tcp"), f.int("udp"));
        let reply = f.text("reply").and_then(|t| reply(&f, t));
        let tls = f.text("tls");
        let (proto, port) = match (tcp, udp) {
            (Some(p), None) => (Proto::TCP, p),
            (None, Some(p)) => (Proto::UDP, p),
            (None, None) => {
                if !f.has("tcp") && !f.has("udp") {
                    f.cx.error(f.error(place, "a listener has `tcp: PORT` or `udp: PORT`"));
                }
                continue;
            }
            (Some(_), Some(p)) => {
                f.cx.error(f.error(p.place, "a listener is for tcp or udp: write two"));
                continue;
            }
        };
        if proto == Proto::UDP {
            let tcp_only = matches!(reply, Some(ListenReply::Http | ListenReply::Proxy | ListenReply::Directory(_)));
            if tcp_only {
                f.cx.error(f.error(f.key_place("reply"), "over udp the reply is hello, echo, sink or source"));
            }
            if let Some(t) = tls {
                f.cx.error(f.error(t.place, "`tls` is for tcp"));
            }
        }
        let delay = f.duration("delay");
        let answers = matches!(reply, Some(ListenReply::Hello | ListenReply::Http | ListenReply::Source));
        if let Some(d) = &delay
            && (proto == Proto::UDP || reply.is_some() && !answers)
        {
            f.cx.error(f.error(d.place, "`delay` is for tcp with the reply hello, http or source"));
        }
        if let Some(t) = tls.filter(|t| !is_host_name(t.value)) {
            f.cx.error(f.error(t.place, format!("`{}` is no host name", t.value)));
        }
        if let Some(first) = taken.insert((proto, port.value), port.place) {
            let message = format!("two listeners on {proto} {}", port.value);
            f.cx.error(f.error(port.place, message).also(first, "the other one"));
        }
        if let Some(reply) = reply {
            // Within a u16 by the table of keys.
            let port = port.value as u16;
            listeners.push(Listener {
                proto,
                port,
                reply,
                tls: tls.map(|t| t.value.to_owned()),
                delay: delay.map_or(Duration::ZERO, |d| d.value),
            });
        }
        f.done();
    }
    listeners
}

fn reply(f: &Fields<'_>, t: At<&str>) -> Option<ListenReply> {
    Some(match t.value {
        "hello" => ListenReply::Hello,
        "echo" => ListenReply::Echo,
        "sink" => ListenReply::Sink,
        "http" => ListenReply::Http,
        "source" => ListenReply::Source,
        "proxy" => ListenReply::Proxy,
        path => {
            let full = f.cx.path(path, t.place);
            if !f.cx.files.is_dir(&full) {
                let help =
                    did_you_mean(path, REPLIES).unwrap_or_else(|| format!("{}, or a directory", REPLIES.join(", ")));
                let message = format!("`{path}` is no reply and no directory");
                f.cx.error(f.error(t.place, message).help(help));
                return None;
            }
            ListenReply::Directory(full)
        }
    })
}

pub fn commands(instance: &Fields<'_>) -> Vec<RunCommand> {
    let mut commands = Vec::new();
    for node in instance.list("run") {
        match &node.value {
            Value::Text(t) if !t.text.trim().is_empty() => {
                commands.push(RunCommand { cmd: t.text.clone(), user: None });
            }
            Value::Map(_) => {
                let place = node.entries().first().map_or(instance.key_place("run"), |e| e.key_place);
                let Some(f) = Fields::open_node(instance.cx, &keys::RUN, instance.title.clone(), node, place) else {
                    continue;
                };
                let user = f.text("user").map(|t| t.value.to_owned());
                if let Some(cmd) = f.text("cmd") {
                    commands.push(RunCommand { cmd: cmd.value.to_owned(), user });
                }
                f.done();
            }
            _ => {
                let place = if node.place.is_empty() { instance.key_place("run") } else { node.place };
                let message = format!("a command is a text or `{{ cmd, user }}`, not {}", node.kind());
                instance.cx.error(instance.error(place, message));
            }
        }
    }
    commands
}

/// RFC 1123, 2.1; one wildcard label may come first.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|l| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !l.starts_with('-')
                && !l.ends_with('-')
        })
}

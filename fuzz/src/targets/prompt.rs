use std::fmt::Debug;

use cluster_shell::Program;
use cluster_shell::command::{Action, ByHand, Command, Write, parse};
use register::program::{Command as OfRegister, Registers};
use shell_words::quote;
use storage::cli::{Command as OfStorage, Many, Part, Rpc, Selection, Storage};

/// A line: it is a command, nothing, or a mistake that is told; and a command is the same when it is
/// typed again as it was understood.
pub(super) fn check(input: &[u8]) {
    let line = String::from_utf8_lossy(input);
    of::<Storage>(&line, of_storage);
    of::<Registers>(&line, of_register);
}

fn of<P: Program>(line: &str, own: impl Fn(&P::Own) -> String)
where
    Command<P::Own>: Debug + PartialEq,
{
    match parse::<P>(line) {
        Ok(None) => {}
        Ok(Some(command)) => {
            let written = written(&command, own);
            let again = parse::<P>(&written);
            assert_eq!(again.as_ref(), Ok(&Some(command)), "{written:?}");
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty());
            // A usage has its lines; what was typed has none of its own.
            assert!(!told.contains('\0') && !told.contains('\r'), "{told:?}");
        }
    }
}

fn written<O>(command: &Command<O>, own: impl Fn(&O) -> String) -> String {
    match command {
        Command::Nodes => "nodes".to_owned(),
        Command::Replica { id, action } => match action {
            Action::Stop => format!("stop {id}"),
            Action::Start => format!("start {id}"),
            Action::Pause => format!("pause {id}"),
            Action::Resume => format!("resume {id}"),
            Action::Delay(delay) => format!("delay {id} {}", delay.as_millis()),
        },
        Command::Call(ByHand { node, method, json }) => {
            format!("call {node} {} {}", quote(method), quote(json))
        }
        Command::Clear => "clear".to_owned(),
        Command::Help(None) => "help".to_owned(),
        Command::Help(Some(spec)) => format!("help {}", spec.name),
        Command::Exit => "exit".to_owned(),
        Command::Own(command) => own(command),
    }
}

fn of_register(command: &OfRegister) -> String {
    match command {
        OfRegister::Read(key) => format!("read {}", quote(key)),
        OfRegister::Write(write) => format!("write {}", pair(write)),
        OfRegister::Peek { node, key } => format!("peek {node} {}", quote(key)),
    }
}

fn of_storage(command: &OfStorage) -> String {
    match command {
        OfStorage::Rpc { node, call } => match call {
            Rpc::Read(key) => format!("rpc {node} read {}", quote(key)),
            Rpc::Write(write) => format!("rpc {node} write {}", pair(write)),
        },
        OfStorage::Unicast { node, write } => format!("ucast {node} {}", pair(write)),
        OfStorage::Many {
            on,
            call,
            explained,
        } => {
            let call = on_some(on.as_ref(), call);
            match explained {
                true => format!("explain {call}"),
                false => call,
            }
        }
        OfStorage::Load { in_flight, time } => format!("load {in_flight} {}", time.as_millis()),
    }
}

fn on_some(on: Option<&Selection>, call: &Many) -> String {
    match (on, call) {
        (None, Many::Multicast(write)) => format!("mcast {}", pair(write)),
        (None, others) => format!("qc {}", many(others)),
        (Some(selection), call) => {
            let parts = selection.0.iter();
            let parts: Vec<_> = parts
                .map(|Part { first, last }| format!("{first}:{last}"))
                .collect();
            format!("cfg {} {}", parts.join(","), many(call))
        }
    }
}

fn many(call: &Many) -> String {
    match call {
        Many::Read(key) => format!("read {}", quote(key)),
        Many::Write(write) => format!("write {}", pair(write)),
        Many::CorrectableRead(key) => format!("cread {}", quote(key)),
        Many::NestedRead(key) => format!("nread {}", quote(key)),
        Many::NestedWrite(write) => format!("nwrite {}", pair(write)),
        Many::Multicast(write) => format!("mcast {}", pair(write)),
    }
}

fn pair(write: &Write) -> String {
    format!("{} {}", quote(&write.key), quote(&write.value))
}

//! Delivery: recipients to mailboxes, forks and journal reports.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::compose;
use super::journal::{Field, Line, Report};
use super::{Delivered, Forks, Mail, Person};
use crate::directory::{Directory, Owner};
use crate::mailbox::{FolderNumber, INBOX, Mailbox, Message, SENT};
use crate::random::{self, Random};
use crate::settings::Journaling;

/// A recipient, resolved.
#[derive(Debug)]
struct Target {
    line: Line,
    /// The mailbox that gets a copy, if it is one of ours.
    mailbox: Option<u32>,
    way: Way,
}

/// What [`Forks::Natural`] splits by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Inside,
    Outside,
    Group(u32),
}

/// A copy that was held back.
#[derive(Debug)]
pub(crate) struct Late {
    message: Arc<Message>,
    mailbox: u32,
    fork: u16,
    received: Timestamp,
}

/// Where mail goes: the mailboxes by user number, and the journal.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) mailboxes: &'a mut Vec<Mailbox>,
    pub(crate) late: &'a mut Vec<Late>,
    pub(crate) random: &'a mut Random,
    pub(crate) journaling: &'a Journaling,
    pub(crate) now: Timestamp,
}

impl Post<'_> {
    /// Delivers a message and gives the journal reports about it.
    pub(crate) fn deliver(&mut self, mail: &Mail) -> (Delivered, Vec<Report>) {
        let inbound = !self
            .directory
            .is_internal(&Person::parse(&mail.from).address);
        let targets = self.targets(mail, inbound);
        let fork_of = forks(&targets, mail.forks);
        let count = fork_of
            .iter()
            .max()
            .map_or(1, |last| usize::from(*last) + 1);
        let message = self.message(mail, count);
        let received = mail
            .received
            .unwrap_or(message.sent + SignedDuration::from_secs(2));
        self.keep_sent_copy(mail, &message);
        let mailboxes = self.put_copies(&targets, &fork_of, &message, received, mail.late);
        let reports = if self.journaling.enabled {
            self.reports(mail, &message, targets, &fork_of, count)
        } else {
            Vec::new()
        };
        let delivered = Delivered {
            message_id: message.message_id.to_string(),
            network_message_ids: message.forks.iter().map(Uuid::to_string).collect(),
            mailboxes,
            recipients: reports.iter().map(|report| report.lines.len()).sum(),
            reports: reports.len(),
        };
        (delivered, reports)
    }

    /// Puts the copies that were held back into their mailboxes.
    pub(crate) fn arrive(&mut self, message_id: &str) -> usize {
        let (due, rest): (Vec<Late>, _) = std::mem::take(self.late)
            .into_iter()
            .partition(|late| &*late.message.message_id == message_id);
        *self.late = rest;
        for late in &due {
            self.put_copy(late.mailbox, late.fork, &late.message, late.received);
        }
        due.len()
    }

    /// Every recipient, groups expanded and forwards followed.
    fn targets(&self, mail: &Mail, inbound: bool) -> Vec<Target> {
        let mut targets = Vec::new();
        for (addresses, field) in [
            (&mail.to, Field::To),
            (&mail.cc, Field::Cc),
            (&mail.bcc, Field::Bcc),
        ] {
            let field = if inbound { Field::Recipient } else { field };
            for text in addresses {
                let address = Person::parse(text).address;
                match self.directory.owner(&address) {
                    Some(Owner::Group(group)) => {
                        for member in self.directory.expand(group) {
                            let line = Line {
                                field,
                                address: member.address.into(),
                                expanded: Some(address.clone()),
                                forwarded: None,
                            };
                            self.add_target(line, member.owner, Way::Group(group), &mut targets);
                        }
                    }
                    owner => {
                        let inside = owner.is_some() && self.directory.is_internal(&address);
                        let way = if inside { Way::Inside } else { Way::Outside };
                        let line = Line {
                            field,
                            address,
                            expanded: None,
                            forwarded: None,
                        };
                        self.add_target(line, owner, way, &mut targets);
                    }
                }
            }
        }
        targets
    }

    /// One recipient, and the one its mail is forwarded to.
    fn add_target(&self, line: Line, owner: Option<Owner>, way: Way, targets: &mut Vec<Target>) {
        let user = match owner {
            Some(Owner::User(number)) => self
                .directory
                .user_at(number)
                .map(|user| (number, &user.is)),
            _ => None,
        };
        if let Some((_, user)) = user
            && let Some(forward) = &user.forward
        {
            let forwarded = Line {
                address: forward.to.as_str().into(),
                forwarded: Some(line.address.clone()),
                expanded: None,
                ..line
            };
            let mailbox = self.mailbox_of(&forward.to);
            targets.push(Target {
                line: forwarded,
                mailbox,
                way: if mailbox.is_some() { way } else { Way::Outside },
            });
            if !forward.keep {
                return;
            }
        }
        let mailbox = user
            .filter(|(_, user)| user.kind.has_mailbox())
            .map(|(number, _)| number);
        targets.push(Target { line, mailbox, way });
    }

    /// The mailbox behind an address.
    fn mailbox_of(&self, address: &str) -> Option<u32> {
        let Some(Owner::User(number)) = self.directory.owner(address) else {
            return None;
        };
        self.directory
            .user_at(number)
            .filter(|user| user.is.kind.has_mailbox())
            .map(|_| number)
    }

    /// The message, written and with the facts that its copies share.
    fn message(&mut self, mail: &Mail, forks: usize) -> Arc<Message> {
        let sent = mail.date.unwrap_or(self.now);
        let from = Person::parse(&mail.from);
        let mut octets = mail.raw.clone();
        let written = octets.as_deref().and_then(|octets| {
            compose::fields(octets)
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("message-id"))
                .map(|(_, id)| id)
        });
        let given = mail.message_id.clone().or_else(|| written.clone());
        let message_id = given.unwrap_or_else(|| {
            let domain = from.address.rsplit('@').next().unwrap_or("x.example");
            format!("<{}@{domain}>", self.random.guid().simple())
        });
        if let (Some(octets), None) = (&mut octets, &written) {
            // Exchange gives a message without Message-ID one.
            octets.splice(0..0, format!("Message-ID: {message_id}\r\n").into_bytes());
        }
        let octets =
            octets.unwrap_or_else(|| compose::message(mail, &message_id, sent, self.random));
        let people = |addresses: &[String]| {
            addresses
                .iter()
                .map(|address| Person::parse(address))
                .collect()
        };
        let topic = mail.references.first().unwrap_or(&message_id);
        Arc::new(Message {
            conversation: random::guid(7, topic, 0),
            message_id: message_id.into(),
            subject: mail.subject.as_str().into(),
            from,
            sender: mail.sender.as_deref().map(Person::parse),
            to: people(&mail.to),
            cc: people(&mail.cc),
            bcc: people(&mail.bcc),
            sent,
            has_attachments: !mail.attachments.is_empty(),
            body: mail.body.as_str().into(),
            octets: octets.into(),
            forks: (0..forks).map(|_| self.random.guid()).collect(),
        })
    }

    /// The copy in Sent Items of whoever sent it, if that is one of ours.
    fn keep_sent_copy(&mut self, mail: &Mail, message: &Arc<Message>) {
        let sender = Person::parse(mail.sender.as_deref().unwrap_or(&mail.from)).address;
        let mailbox = self
            .mailbox_of(&sender)
            .and_then(|number| self.mailboxes.get_mut(number as usize));
        if let Some(mailbox) = mailbox {
            mailbox.add(Arc::clone(message), None, SENT, message.sent);
        }
    }

    /// Copies into mailboxes, one each: Exchange suppresses duplicates by Message-ID.
    fn put_copies(
        &mut self,
        targets: &[Target],
        fork_of: &[u16],
        message: &Arc<Message>,
        received: Timestamp,
        late: bool,
    ) -> Vec<String> {
        let (mut seen, mut addresses) = (HashSet::new(), Vec::new());
        for (target, fork) in targets.iter().zip(fork_of) {
            let Some(mailbox) = target.mailbox.filter(|number| seen.insert(*number)) else {
                continue;
            };
            addresses.extend(
                self.directory
                    .user_at(mailbox)
                    .map(|user| user.is.address.clone()),
            );
            if late {
                self.late.push(Late {
                    message: Arc::clone(message),
                    mailbox,
                    fork: *fork,
                    received,
                });
            } else {
                self.put_copy(mailbox, *fork, message, received);
            }
        }
        addresses
    }

    /// One copy into one mailbox, where its rules want it.
    fn put_copy(&mut self, number: u32, fork: u16, message: &Arc<Message>, received: Timestamp) {
        let rules = self
            .directory
            .user_at(number)
            .map(|user| user.is.rules.as_slice())
            .unwrap_or_default();
        let subject = message.subject.to_lowercase();
        let rule = rules
            .iter()
            .find(|rule| subject.contains(&rule.subject.to_lowercase()));
        let Some(mailbox) = self.mailboxes.get_mut(number as usize) else {
            return;
        };
        let folder: FolderNumber = rule.map_or(INBOX, |rule| mailbox.folder_named(&rule.folder));
        mailbox.add(Arc::clone(message), Some(fork), folder, received);
    }

    /// One report a fork.
    fn reports(
        &mut self,
        mail: &Mail,
        message: &Arc<Message>,
        targets: Vec<Target>,
        fork_of: &[u16],
        count: usize,
    ) -> Vec<Report> {
        let mut lines: Vec<Vec<Line>> = (0..count).map(|_| Vec::new()).collect();
        for (target, fork) in targets.into_iter().zip(fork_of) {
            if let Some(lines) = lines.get_mut(usize::from(*fork)) {
                lines.push(target.line);
            }
        }
        let report = |(fork, lines): (usize, Vec<Line>)| Report {
            guid: self.random.guid(),
            message: Arc::clone(message),
            fork: u16::try_from(fork).unwrap_or(u16::MAX),
            lines,
            date: message.sent + SignedDuration::from_secs(3),
            protected: mail.protected,
        };
        lines
            .into_iter()
            .enumerate()
            .filter(|(_, lines)| !lines.is_empty())
            .map(report)
            .collect()
    }
}

/// The fork of each target.
fn forks(targets: &[Target], how: Forks) -> Vec<u16> {
    let mut ways: HashMap<Way, u16> = HashMap::new();
    let number = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let fork = |(position, target): (usize, &Target)| match how {
        Forks::One => 0,
        Forks::Every(size) => number(position / size.max(1)),
        Forks::Natural => {
            let next = number(ways.len());
            *ways.entry(target.way).or_insert(next)
        }
    };
    targets.iter().enumerate().map(fork).collect()
}

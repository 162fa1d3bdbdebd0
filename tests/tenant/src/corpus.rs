//! A company and its mail, made up: realistic enough for the demo and for load, the same for the same seed.
//!
//! [`Company::settings`] gives the tenant, [`Company::mails`] its ordinary mail, [`Company::phish`] the one
//! message that has to be taken back, and [`Company::aftermath`] what its readers did with it.

use jiff::{SignedDuration, Timestamp};

use crate::Delivered;
use crate::mail::{Attachment, Forks, Mail};
use crate::random::{self, Random};
use crate::settings::{Contact, Group, GroupKind, Settings, User, UserKind};
use crate::tenant::{Tenant, UserAction};
use crate::words::{
    BODIES, DEPARTMENTS, DOCUMENTS, FIRST_NAMES, LAST_NAMES, NEWSLETTERS, PARTNERS, SUBJECTS,
};

/// A company: everyone's address, and what they write.
#[derive(Debug, Clone)]
pub struct Company {
    seed: u64,
    domain: String,
    people: Vec<User>,
    since: Timestamp,
    until: Timestamp,
}

/// What was played into a tenant.
#[derive(Debug, Clone)]
pub struct Story {
    /// The message to be taken back.
    pub phish: Delivered,
    /// How many messages were delivered, the phish and its decoy included.
    pub messages: usize,
    /// How many journal reports they made.
    pub reports: usize,
}

impl Company {
    /// `size` people (at least 20) who wrote to each other in the `days` before `until`.
    pub fn new(seed: u64, size: usize, days: i64, until: Timestamp) -> Self {
        let domain = "northwind.example".to_owned();
        let mut random = Random::new(random::hash(seed, &[b"company"]));
        let mut people = Vec::new();
        for number in 0..size.max(20) {
            people.push(person(number, &domain, &mut random));
        }
        let since = until - SignedDuration::from_hours(24 * days.max(1));
        Self {
            seed,
            domain,
            people,
            since,
            until,
        }
    }

    /// The tenant of the company.
    pub fn settings(&self) -> Settings {
        let address = |local: &str| format!("{local}@{}", self.domain);
        let mut users = self.people.clone();
        for shared in ["info", "sales", "support"] {
            users.push(User {
                name: format!("Northwind {shared}"),
                ..User::new(&address(shared)).kind(UserKind::Shared)
            });
        }
        users.push(User {
            name: "Room Aurora".into(),
            ..User::new(&address("room.aurora")).kind(UserKind::Room)
        });
        let mut groups: Vec<Group> = DEPARTMENTS
            .iter()
            .enumerate()
            .map(|(number, name)| {
                Group::new(
                    &address(name),
                    self.people
                        .iter()
                        .skip(number)
                        .step_by(DEPARTMENTS.len())
                        .map(|user| &user.address),
                )
            })
            .collect();
        groups.push(Group::new(
            &address("all"),
            DEPARTMENTS.iter().map(|name| address(name)),
        ));
        groups.push(Group {
            kind: GroupKind::Dynamic,
            ..Group::new(
                &address("everyone-in-town"),
                self.people.iter().step_by(3).map(|user| &user.address),
            )
        });
        let contacts = PARTNERS.iter().take(5).map(|(name, domain)| Contact {
            address: format!("office@{domain}"),
            name: (*name).into(),
        });
        Settings {
            seed: self.seed,
            name: "Northwind Traders".into(),
            domains: vec![self.domain.clone(), "northwind.onmicrosoft.example".into()],
            users,
            groups,
            contacts: contacts.collect(),
            ..Settings::default()
        }
    }

    /// `count` messages in the order of their dates.
    pub fn mails(&self, count: usize) -> impl Iterator<Item = Mail> + use<> {
        let company = self.clone();
        let span = self.until.duration_since(self.since).as_secs();
        let mut random = Random::new(random::hash(self.seed, &[b"mails"]));
        let mut threads: Vec<Mail> = Vec::new();
        (0..count).map(move |number| {
            let part = i64::try_from(number).unwrap_or(0) * span
                / i64::try_from(count.max(1)).unwrap_or(1);
            let date = company.since + SignedDuration::from_secs(part);
            let mut mail = company.mail(&mut random, &threads);
            let from = mail
                .from
                .rsplit('@')
                .next()
                .unwrap_or_default()
                .trim_end_matches('>')
                .to_owned();
            mail.message_id = Some(format!("<{}@{from}>", random.guid().simple()));
            mail.date = Some(date);
            mail.received = Some(
                date + SignedDuration::from_secs(1 + i64::try_from(random.below(20)).unwrap_or(0)),
            );
            if threads.len() < 200 {
                threads.push(Mail {
                    attachments: Vec::new(),
                    ..mail.clone()
                });
            } else {
                let at = random.index(threads.len());
                threads[at] = Mail {
                    attachments: Vec::new(),
                    ..mail.clone()
                };
            }
            mail
        })
    }

    /// The phish: from a look-alike domain to most of the company, in several forks.
    pub fn phish(&self) -> Mail {
        let direct = self
            .people
            .iter()
            .step_by(2)
            .map(|user| user.address.clone());
        let mut to: Vec<String> = direct.collect();
        let bcc = to.split_off(to.len() / 2);
        let at = self.until - SignedDuration::from_mins(90);
        Mail {
            to: to.into_iter().chain([format!("{}@{}", DEPARTMENTS[1], self.domain)]).collect(),
            bcc,
            body: "Your mailbox is almost full. Sign in within 24 hours to keep receiving mail:\r\nhttps://login.northvvind.example/verify?id=8841\r\n".into(),
            html: Some(
                "<html><body><p>Your mailbox is almost full.</p><p><a href=\"https://login.northvvind.example/verify?id=8841\">Sign in within 24 hours</a></p></body></html>\r\n".into(),
            ),
            message_id: Some("<quota-8841@mail.northvvind.example>".into()),
            date: Some(at),
            received: Some(at + SignedDuration::from_secs(4)),
            forks: Forks::Every(25),
            headers: vec![("Reply-To".into(), "helpdesk@collect.example".into())],
            ..Mail::new("IT Service Desk <it-servicedesk@northvvind.example>", [""; 0], "Action required: your mailbox is almost full")
        }
    }

    /// An innocent message with the subject of the phish, which must stay where it is.
    pub fn decoy(&self) -> Mail {
        let at = self.until - SignedDuration::from_mins(80);
        Mail {
            body: "Please do not sign in anywhere: the message of this morning is not ours.\r\n"
                .into(),
            message_id: Some(format!("<warning-1@{}>", self.domain)),
            date: Some(at),
            received: Some(at + SignedDuration::from_secs(2)),
            ..Mail::new(
                &formatted(&self.people[0]),
                [format!("all@{}", self.domain)],
                "Action required: your mailbox is almost full",
            )
        }
    }

    /// What readers of the phish did: some read it, some filed it, one deleted it, one copied it.
    pub fn aftermath(&self, phish: &Delivered) -> Vec<(String, UserAction)> {
        let mut random = Random::new(random::hash(self.seed, &[b"aftermath"]));
        let mut readers = phish.mailboxes.clone();
        random.shuffle(&mut readers);
        let actions = [
            UserAction::Move("deleteditems".into()),
            UserAction::Move("archive".into()),
            UserAction::Move("To do".into()),
            UserAction::Copy("Important".into()),
            UserAction::Move("recoverableitemsdeletions".into()),
            UserAction::Vanish,
        ];
        let (few, rest) = readers.split_at(readers.len().min(actions.len()));
        let acted = few.iter().cloned().zip(actions);
        let read = rest
            .iter()
            .filter(|_| random.chance(0.4))
            .map(|reader| (reader.clone(), UserAction::Read));
        acted.chain(read.collect::<Vec<_>>()).collect()
    }

    /// One message of ordinary mail.
    fn mail(&self, random: &mut Random, threads: &[Mail]) -> Mail {
        match random.below(100) {
            0..30 => self.internal(random),
            30..45 => self.reply(random, threads),
            45..70 => self.inbound(random),
            70..82 => self.newsletter(random),
            82..90 => self.to_group(random),
            90..96 => self.outbound(random),
            _ => self.on_behalf(random),
        }
    }

    /// Among colleagues.
    fn internal(&self, random: &mut Random) -> Mail {
        let from = formatted(random.pick(&self.people));
        let mut mail = Mail::new(&from, self.some(random, 4), subject(random));
        mail.body = body(random);
        if random.chance(0.3) {
            mail.cc = self.some(random, 3);
        }
        if random.chance(0.05) {
            mail.bcc = self.some(random, 2);
        }
        attach(&mut mail, random, 0.15);
        mail
    }

    /// An answer to an earlier message.
    fn reply(&self, random: &mut Random, threads: &[Mail]) -> Mail {
        let Some(earlier) = (!threads.is_empty()).then(|| random.pick(threads)) else {
            return self.internal(random);
        };
        let from = formatted(random.pick(&self.people));
        let prefix = if earlier.subject.starts_with("RE: ") {
            ""
        } else {
            "RE: "
        };
        let mut references = earlier.references.clone();
        references.extend(earlier.message_id.clone());
        Mail {
            body: body(random),
            references,
            ..Mail::new(
                &from,
                [&earlier.from],
                &format!("{prefix}{}", earlier.subject),
            )
        }
    }

    /// From a partner.
    fn inbound(&self, random: &mut Random) -> Mail {
        let mut mail = Mail::new(&partner(random), self.some(random, 2), subject(random));
        mail.body = format!(
            "{}\r\nhttps://www.{}/orders/{}\r\n",
            body(random),
            random.pick(&PARTNERS).1,
            random.below(10_000)
        );
        if random.chance(0.1) {
            mail.to.push(format!(
                "{}@{}",
                random.pick(&["info", "sales", "support"]),
                self.domain
            ));
        }
        attach(&mut mail, random, 0.3);
        mail
    }

    /// To many, from a list.
    fn newsletter(&self, random: &mut Random) -> Mail {
        let (name, domain) = random.pick(&NEWSLETTERS);
        let issue = random.below(200);
        let mut mail = Mail::new(
            &format!("{name} <news@{domain}>"),
            self.some(random, 1),
            &format!("{name}: issue {issue}"),
        );
        mail.body = format!("This week in {name}.\r\nhttps://{domain}/issues/{issue}\r\n");
        let links = (0..8).map(|link| {
            format!("<li><a href=\"https://click.{domain}/t/{issue}/{link}\">Story {link}</a></li>")
        });
        mail.html = Some(format!(
            "<html><body><h1>{name}</h1><ul>\r\n{}\r\n</ul></body></html>\r\n",
            links.collect::<Vec<_>>().join("\r\n")
        ));
        mail.headers = vec![
            ("List-Id".into(), format!("{name} <news.{domain}>")),
            (
                "List-Unsubscribe".into(),
                format!("<https://{domain}/unsubscribe>"),
            ),
            ("Precedence".into(), "bulk".into()),
        ];
        mail
    }

    /// To a department or to all.
    fn to_group(&self, random: &mut Random) -> Mail {
        let from = formatted(random.pick(&self.people));
        let group = if random.chance(0.15) {
            "all"
        } else {
            random.pick(&DEPARTMENTS)
        };
        let mut mail = Mail::new(&from, [format!("{group}@{}", self.domain)], subject(random));
        mail.body = body(random);
        attach(&mut mail, random, 0.1);
        mail
    }

    /// To a partner, colleagues in copy.
    fn outbound(&self, random: &mut Random) -> Mail {
        let from = formatted(random.pick(&self.people));
        let mut mail = Mail {
            cc: self.some(random, 2),
            body: body(random),
            ..Mail::new(&from, [partner(random)], subject(random))
        };
        attach(&mut mail, random, 0.25);
        mail
    }

    /// An assistant for somebody else.
    fn on_behalf(&self, random: &mut Random) -> Mail {
        let from = formatted(&self.people[0]);
        Mail {
            sender: Some(formatted(&self.people[1])),
            body: body(random),
            ..Mail::new(&from, self.some(random, 5), subject(random))
        }
    }

    /// One to `most` addresses of colleagues; now and then an alias.
    fn some(&self, random: &mut Random, most: u64) -> Vec<String> {
        let count = 1 + random.below(most);
        let one = |_| {
            let user = random.pick(&self.people);
            match user.aliases.first() {
                Some(alias) if random.chance(0.5) => alias.clone(),
                _ => formatted(user),
            }
        };
        let mut addresses: Vec<String> = (0..count).map(one).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}

impl Tenant {
    /// Delivers the company's mail, the phish and its decoy, and lets its readers act.
    pub fn play(&self, company: &Company, messages: usize) -> Story {
        let mut reports = 0;
        for mail in company.mails(messages) {
            reports += self.deliver(&mail).reports;
        }
        let phish = self.deliver(&company.phish());
        reports += phish.reports + self.deliver(&company.decoy()).reports;
        for (reader, action) in company.aftermath(&phish) {
            self.act(&reader, &phish.message_id, &action);
        }
        Story {
            phish,
            messages: messages + 2,
            reports,
        }
    }
}

/// A person with the habits that some have.
fn person(number: usize, domain: &str, random: &mut Random) -> User {
    let first = FIRST_NAMES[number % FIRST_NAMES.len()];
    let last = LAST_NAMES[(number / FIRST_NAMES.len() + number * 7) % LAST_NAMES.len()];
    let local = format!("{first}.{last}").to_lowercase();
    let local = if number < FIRST_NAMES.len() * LAST_NAMES.len() / 8 {
        local
    } else {
        format!("{local}{number}")
    };
    let mut user = User {
        name: format!("{first} {last}"),
        ..User::new(&format!("{local}@{domain}"))
    };
    if number % 7 == 3 {
        user = user.alias(&format!("{}.{number}@{domain}", last.to_lowercase()));
    }
    if number % 11 == 5 {
        user = user.rule("issue", "Newsletters");
    }
    match number {
        // One rule that moves the phish, one person who has left, one who forwards.
        4 => user.rule("Action required", "Urgent"),
        9 => user.kind(UserKind::Deleted),
        13 => user.forwarding(&format!("{}@{domain}", "info"), true),
        17 => user.forwarding("private@outside.example", true),
        _ if random.chance(0.02) => user.kind(UserKind::OnPremises),
        _ => user,
    }
}

fn formatted(user: &User) -> String {
    format!("{} <{}>", user.name, user.address)
}

fn partner(random: &mut Random) -> String {
    let (_, domain) = random.pick(&PARTNERS);
    let (first, last) = (random.pick(&FIRST_NAMES), random.pick(&LAST_NAMES));
    format!("{first} {last} <{}@{domain}>", first.to_lowercase())
}

fn subject(random: &mut Random) -> &'static str {
    SUBJECTS[random.index(SUBJECTS.len())]
}

/// Some paragraphs.
fn body(random: &mut Random) -> String {
    let paragraphs = 1 + random.below(6);
    (0..paragraphs)
        .map(|_| format!("{}\r\n\r\n", random.pick(&BODIES)))
        .collect()
}

/// With probability `share` a document, and then perhaps another. Documents recur, as they do in offices.
fn attach(mail: &mut Mail, random: &mut Random, share: f64) {
    while random.chance(share) && mail.attachments.len() < 3 {
        let number = random.index(DOCUMENTS.len() * 4);
        let (name, content_type) = DOCUMENTS[number % DOCUMENTS.len()];
        let mut content = Random::new(number as u64);
        let length = 500 + content.index(12_000);
        let octets = std::iter::from_fn(|| Some(content.next().to_be_bytes()))
            .flatten()
            .take(length)
            .collect();
        mail.attachments.push(Attachment {
            name: name.into(),
            content_type: content_type.into(),
            octets,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn company() -> Company {
        Company::new(5, 80, 14, "2026-07-20T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_same_seed_gives_the_same_mail() {
        let texts = |company: &Company| {
            company
                .mails(300)
                .map(|mail| format!("{mail:?}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&company()), texts(&company()));
        assert_ne!(
            texts(&company()),
            texts(&Company {
                seed: 6,
                ..company()
            })
        );
    }

    #[test]
    fn addresses_are_unique_and_dates_in_order() {
        for size in [20, 200, 3_000] {
            let mut addresses: Vec<String> = Company::new(5, size, 14, company().until)
                .people
                .into_iter()
                .map(|user| user.address)
                .collect();
            addresses.sort();
            addresses.dedup();
            assert_eq!(addresses.len(), size);
        }
        let dates: Vec<_> = company().mails(500).map(|mail| mail.date).collect();
        assert!(dates.is_sorted() && dates[0] >= Some(company().since));
    }

    #[test]
    fn there_is_something_of_everything() {
        let company = company();
        let mails: Vec<Mail> = company.mails(1000).collect();
        let inside = |mail: &Mail| mail.from.contains("northwind.example");
        for (name, count) in [
            (
                "from outside",
                mails.iter().filter(|mail| !inside(mail)).count(),
            ),
            (
                "from inside",
                mails.iter().filter(|mail| inside(mail)).count(),
            ),
            (
                "with attachments",
                mails
                    .iter()
                    .filter(|mail| !mail.attachments.is_empty())
                    .count(),
            ),
            (
                "in a thread",
                mails
                    .iter()
                    .filter(|mail| !mail.references.is_empty())
                    .count(),
            ),
            (
                "with HTML",
                mails.iter().filter(|mail| mail.html.is_some()).count(),
            ),
            (
                "with bcc",
                mails.iter().filter(|mail| !mail.bcc.is_empty()).count(),
            ),
            (
                "beyond ASCII",
                mails.iter().filter(|mail| !mail.subject.is_ascii()).count(),
            ),
        ] {
            assert!(count >= 5, "{name}: {count} of 1000");
        }
    }
}

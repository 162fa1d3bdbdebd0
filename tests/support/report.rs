//! Journal reports as Exchange Online writes them.

use std::fmt::Write;

/// The tenant that the tests' reports come from.
pub(crate) const TENANT_ID: &str = "11111111-2222-4333-8444-555555555555";

/// What a report is made of. The defaults are a report that is believed.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// Message-ID of the journaled message, without brackets.
    pub(crate) message_id: String,
    pub(crate) sender: String,
    /// Lines such as `Recipient: a@contoso.example`.
    pub(crate) recipients: Vec<String>,
    pub(crate) subject: String,
    /// Lines of the journaled message after its header.
    pub(crate) body: String,
    /// More lines for the header of the journaled message.
    pub(crate) inner_header: String,
    pub(crate) originator_org: Option<String>,
    pub(crate) tenant_id: Option<String>,
    /// Whether the mark of a journal report is there.
    pub(crate) marked: bool,
    /// Message-ID of the report itself, without brackets.
    pub(crate) report_id: String,
}

impl Mail {
    pub(crate) fn new(message_id: &str) -> Self {
        Self {
            message_id: message_id.to_owned(),
            sender: "billing@tailspin.example".to_owned(),
            recipients: vec!["Recipient: dana@contoso.example".to_owned()],
            subject: "Invoice 4711".to_owned(),
            body: "Please pay.\r\n".to_owned(),
            inner_header: String::new(),
            originator_org: Some("contoso.onmicrosoft.example".to_owned()),
            tenant_id: Some(TENANT_ID.to_owned()),
            marked: true,
            report_id: format!("report-of-{message_id}"),
        }
    }

    /// This many recipients instead.
    pub(crate) fn with_recipients(mut self, count: usize) -> Self {
        self.recipients = (0..count)
            .map(|number| format!("Recipient: user{number}@contoso.example"))
            .collect();
        self
    }

    /// The report, with CRLF.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        let Self {
            message_id,
            sender,
            subject,
            report_id,
            ..
        } = self;
        text += "Content-Type: multipart/mixed;\r\n\tboundary=\"_b_\"\r\n";
        write!(
            text,
            "Subject: {subject}\r\nFrom: <{sender}>\r\nMIME-Version: 1.0\r\n"
        )
        .unwrap();
        write!(text, "Message-ID: <{report_id}>\r\n").unwrap();
        text += "Date: Mon, 06 Jul 2026 08:00:01 +0000\r\n";
        if self.marked {
            text += "X-MS-Journal-Report:\r\n";
        }
        if let Some(tenant) = &self.tenant_id {
            write!(text, "X-LD-Processed: {tenant},ExtAddr\r\n").unwrap();
        }
        if let Some(org) = &self.originator_org {
            write!(text, "X-OriginatorOrg: {org}\r\n").unwrap();
        }
        text += "\r\n--_b_\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\r\n";
        write!(
            text,
            "Sender: {sender}\r\nSubject: {subject}\r\nMessage-Id: <{message_id}>\r\n"
        )
        .unwrap();
        for recipient in &self.recipients {
            write!(text, "{recipient}\r\n").unwrap();
        }
        text += "\r\n--_b_\r\nContent-Type: message/rfc822\r\n\r\n";
        write!(
            text,
            "From: <{sender}>\r\nSubject: {subject}\r\nMessage-ID: <{message_id}>\r\n"
        )
        .unwrap();
        text += "Date: Mon, 06 Jul 2026 08:00:00 +0000\r\n";
        text += &self.inner_header;
        text += "\r\n";
        text += &self.body;
        text + "\r\n--_b_--\r\n"
    }
}

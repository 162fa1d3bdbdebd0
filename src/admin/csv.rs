//! `search --csv`: one row a recipient.

use std::fmt::Write as _;

use crate::escape::csv_field;
use crate::index::Record;
use crate::journal::Field;
use crate::mail::Address;

/// The header row.
pub(super) const HEADER: &str = "id,tenant,region,received,sent,message_id,sender,on_behalf_of,subject,recipient,field,expanded_from,forwarded_from,size,verdict\n";

/// Writes rows of records; the buffers are kept from one to the next.
#[derive(Default)]
pub(super) struct Rows {
    /// What stands before the recipient; the same for every row of a record.
    before: String,
    /// What stands behind.
    after: String,
}

impl Rows {
    /// Appends the rows of a record.
    pub(super) fn write(&mut self, record: &Record, into: &mut String) {
        let before = &mut self.before;
        before.clear();
        // Writing to a String cannot fail.
        let _ = write!(before, "{},", record.id);
        csv_field(before, record.tenant.as_str());
        before.push(',');
        csv_field(before, record.region.as_deref().unwrap_or_default());
        let _ = write!(before, ",{},{},", record.received, record.sent);
        csv_field(
            before,
            record.message_id.as_ref().map_or("", |id| id.as_str()),
        );
        before.push(',');
        csv_field(before, address(record.sender.as_ref()));
        before.push(',');
        csv_field(before, address(record.on_behalf_of.as_ref()));
        before.push(',');
        csv_field(before, record.subject.as_deref().unwrap_or_default());
        before.push(',');
        self.after.clear();
        let _ = writeln!(self.after, ",{},", record.size);
        for recipient in &record.recipients {
            into.push_str(&self.before);
            csv_field(into, recipient.address.as_str());
            into.push_str(match recipient.field {
                Field::To => ",to,",
                Field::Cc => ",cc,",
                Field::Bcc => ",bcc,",
                Field::Recipient => ",recipient,",
            });
            csv_field(into, address(recipient.expanded_from.as_ref()));
            into.push(',');
            csv_field(into, address(recipient.forwarded_from.as_ref()));
            into.push_str(&self.after);
        }
    }
}

fn address(address: Option<&Address>) -> &str {
    address.map_or("", Address::as_str)
}

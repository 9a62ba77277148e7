//! A small writer for the XML answers of the query protocols.

use quick_xml::escape::escape;

/// Writes elements in order. The names are ours; texts are escaped.
#[derive(Debug, Default)]
pub struct Xml(String);

impl Xml {
    pub fn new() -> Xml {
        Xml::default()
    }

    pub fn with_declaration() -> Xml {
        Xml("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".into())
    }

    pub fn open(&mut self, name: &str) -> &mut Xml {
        self.raw(&["<", name, ">"])
    }

    pub fn open_ns(&mut self, name: &str, namespace: &str) -> &mut Xml {
        self.raw(&["<", name, " xmlns=\"", namespace, "\">"])
    }

    pub fn close(&mut self, name: &str) -> &mut Xml {
        self.raw(&["</", name, ">"])
    }

    pub fn empty(&mut self, name: &str) -> &mut Xml {
        self.raw(&["<", name, "/>"])
    }

    /// `<name>text</name>`.
    pub fn leaf(&mut self, name: &str, text: &str) -> &mut Xml {
        // XML 1.0 takes a bare carriage return for a line feed: AWS writes it as a reference.
        let text = escape(text).replace('\r', "&#xD;");
        self.raw(&["<", name, ">", &text, "</", name, ">"])
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn raw(&mut self, parts: &[&str]) -> &mut Xml {
        for part in parts {
            self.0.push_str(part);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        let mut xml = Xml::new();
        xml.open_ns("A", "urn:x").leaf("B", "1 < 2 & \"3\"\r\n").empty("C").close("A");
        assert_eq!(xml.finish(), "<A xmlns=\"urn:x\"><B>1 &lt; 2 &amp; &quot;3&quot;&#xD;\n</B><C/></A>");
    }
}

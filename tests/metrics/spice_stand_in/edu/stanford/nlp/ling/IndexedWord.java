package edu.stanford.nlp.ling;

public class IndexedWord {
    public String lemma() {
        return "";
    }
}

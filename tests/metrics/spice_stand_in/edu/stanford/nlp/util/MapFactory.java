package edu.stanford.nlp.util;

public class MapFactory<K, V> {
    public static <K, V> MapFactory<K, V> hashMapFactory() {
        return new MapFactory<>();
    }
}

package edu.anu.spice;

import edu.cmu.meteor.aligner.SynonymDictionary;
import edu.cmu.meteor.util.Constants;
import java.io.IOException;
import java.net.URL;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;

/** A stand-in that knows only captions such as "a red bus on the wet road and a dog". */
public class SpiceParser {
    private final SynonymDictionary synonyms;

    public SpiceParser(String cache, int threads, Boolean merge) throws IOException {
        String folder = Constants.DEFAULT_SYN_DIR_URL.toString();
        synonyms = new SynonymDictionary(
            new URL(folder + "/english.exceptions"), new URL(folder + "/english.synsets"),
            new URL(folder + "/english.relations"));
    }

    public List<SceneGraph> parseCaptions(List<String> captions) {
        return parseCaptions(captions, Collections.nCopies(captions.size(), 1));
    }

    public List<SceneGraph> parseCaptions(List<String> captions, List<Integer> chunks) {
        Iterator<String> next = captions.iterator();
        List<SceneGraph> graphs = new ArrayList<>();
        for (int count : chunks) {
            SceneGraph graph = new SceneGraph(synonyms, true);
            for (int i = 0; i < count; i++) {
                read(next.next(), graph);
            }
            graphs.add(graph);
        }
        return graphs;
    }

    private static void read(String caption, SceneGraph graph) {
        if (caption.equals("crash")) {
            throw new IllegalStateException("the stand-in was told to crash");
        }
        while (caption.equals("hang")) {
            Thread.yield();
        }
        for (String part : caption.split(" and ")) {
            String before = null;
            for (String phrase : part.split(" on ")) {
                String object = object(phrase, graph);
                if (before != null && object != null) {
                    graph.addTuple(new ArrayList<>(Arrays.asList(before, object, "on")));
                }
                before = object;
            }
        }
    }

    private static String object(String phrase, SceneGraph graph) {
        List<String> words = new ArrayList<>(Arrays.asList(phrase.split("\\s+")));
        words.removeAll(Arrays.asList("a", "the", ".", ""));
        if (words.isEmpty()) {
            return null;
        }
        String object = words.remove(words.size() - 1);
        graph.addTuple(new ArrayList<>(Arrays.asList(object)));
        for (String word : words) {
            graph.addTuple(new ArrayList<>(Arrays.asList(object, word)));
        }
        return object;
    }
}

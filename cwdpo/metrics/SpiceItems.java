package edu.anu.spice;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;

/**
 * SPICE with the scores of every item written as plain JSON.
 *
 * SPICE's own main formats them with the JavaScript engine that Java has been without since version 15, so that it
 * dies after all the work is done. Arguments are those of SPICE; -out is required.
 */
public final class SpiceItems {
    private SpiceItems() {
    }

    public static void main(String[] words) throws Exception {
        SpiceArguments arguments = new SpiceArguments(words);
        Path output = Paths.get(arguments.outputPath);
        arguments.outputPath = null;
        SpiceScorer scorer = new SpiceScorer();
        scorer.scoreBatch(arguments);
        Files.write(output, scorer.stats.toJSONString().getBytes(StandardCharsets.UTF_8));
    }
}
